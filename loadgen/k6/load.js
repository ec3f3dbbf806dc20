// The same load by k6, as a second opinion that shares no code with loadgen:
//
//   k6 run -e ORDERS_GRPC=127.0.0.1:50051 -e CUSTOMERS_GRPC=127.0.0.1:50052 -e RATE=100 loadgen/k6/load.js
//
// An open model as well: k6 starts iterations by the clock, and counts those that it could not as
// `dropped_iterations`. But its latency runs from when a request is sent: compare it with loadgen's where both
// keep up, and not where requests are late. Watches are left to loadgen.

import grpc from 'k6/net/grpc';
import exec from 'k6/execution';
import { check } from 'k6';
import { Trend } from 'k6/metrics';

const ORDERS = __ENV.ORDERS_GRPC || '127.0.0.1:50051';
const CUSTOMERS = __ENV.CUSTOMERS_GRPC || '127.0.0.1:50052';
const RATE = Number(__ENV.RATE || 100);
const COUNT = Number(__ENV.CUSTOMERS || 1000);
const ZIPF = Number(__ENV.ZIPF || 1);

const settled = new Trend('order_settled', true);

export const options = {
  scenarios: {
    load: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: __ENV.DURATION || '30s',
      preAllocatedVUs: Math.max(50, RATE),
      maxVUs: Math.max(200, RATE * 4),
    },
  },
  thresholds: {
    'grpc_req_duration{waits:no}': [`p(99)<${__ENV.P99_MS || 250}`],
    order_settled: [`p(99)<${__ENV.SETTLED_P99_MS || 2000}`],
    checks: ['rate>0.999'],
    dropped_iterations: ['count==0'],
  },
};

const client = new grpc.Client();
client.load(['../../proto'], 'orders/v1/orders.proto', 'customers/v1/customers.proto');

const service = (name) => `orders.v1.OrderService/${name}`;
const euros = (minorUnits) => ({ minor_units: minorUnits, currency: 'EUR' });

export function setup() {
  client.connect(CUSTOMERS, { plaintext: true });
  const ids = [];
  for (let number = 0; number < COUNT; number++) {
    const created = client.invoke('customers.v1.CustomerService/CreateCustomer', {
      name: `k6 ${number}`,
      credit_limit: euros(1000000000000),
    });
    if (created.status !== grpc.StatusOK) exec.test.abort(`no customer: ${created.error.message}`);
    ids.push(created.message.customer.customerId);
  }
  client.close();
  let sum = 0;
  const upTo = ids.map((_, index) => (sum += Math.pow(index + 1, -ZIPF)));
  return { ids, upTo: upTo.map((part) => part / sum) };
}

const latest = [];

export default function ({ ids, upTo }) {
  if (exec.vu.iterationInScenario === 0) client.connect(ORDERS, { plaintext: true });
  const draw = Math.random();
  if (draw < 0.7 || latest.length === 0) return create(ids, upTo);
  const order_id = latest[Math.floor(Math.random() * latest.length)];
  const answer = client.invoke(service(draw < 0.93 ? 'GetOrder' : 'CancelOrder'), { order_id }, { tags: { waits: 'no' } });
  check(answer, { ok: (one) => one && one.status === grpc.StatusOK });
}

function create(ids, upTo) {
  const draw = Math.random();
  const index = upTo.findIndex((part) => draw < part);
  const begun = Date.now();
  const request = { customer_id: ids[index], total: euros(100) };
  const created = client.invoke(service('CreateOrder'), request, { tags: { waits: 'no' } });
  if (!check(created, { ok: (one) => one && one.status === grpc.StatusOK })) return;
  const order_id = created.message.order.orderId;
  latest.push(order_id);
  if (latest.length > 64) latest.shift();
  // Tagged, so that it stays out of the threshold on requests.
  const outcome = client.invoke(service('GetOrder'), { order_id, wait: '15s' }, { tags: { waits: 'yes' } });
  const state = outcome.status === grpc.StatusOK && outcome.message.order.state;
  if (check(state, { settled: (one) => one === 'ORDER_STATE_APPROVED' || one === 'ORDER_STATE_CANCELLED' })) {
    settled.add(Date.now() - begun);
  }
}
