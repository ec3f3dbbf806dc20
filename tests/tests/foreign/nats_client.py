"""A NATS client that sends JSON, as somebody would write it by hand.

Usage: nats_client.py NATS_URL
"""

import asyncio
import json
import sys
import time

import nats

REQUEST_SECONDS = 30
SETTLE_SECONDS = 60


async def main(url):
    connection = await nats.connect(url)

    async def request(subject, body):
        headers = {"Content-Type": "application/json"}
        payload = json.dumps(body).encode()
        return await connection.request(
            subject, payload, timeout=REQUEST_SECONDS, headers=headers
        )

    async def answer(subject, body):
        reply = await request(subject, body)
        assert reply.headers["Content-Type"] == "application/json", reply.headers
        return json.loads(reply.data)

    customer = await answer(
        "customers.v1.CreateCustomer",
        {"name": "Grace", "creditLimit": {"minorUnits": 1000, "currency": "EUR"}},
    )
    customer_id = customer["customer"]["customerId"]
    order = await answer(
        "orders.v1.CreateOrder",
        {"customerId": customer_id, "total": {"minorUnits": "1000", "currency": "EUR"}},
    )
    order = order["order"]
    assert order["state"] == "ORDER_STATE_PENDING", order
    deadline = time.monotonic() + SETTLE_SECONDS
    while order["state"] == "ORDER_STATE_PENDING" and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
        found = await answer("orders.v1.GetOrder", {"orderId": order["orderId"]})
        order = found["order"]
    assert order["state"] == "ORDER_STATE_APPROVED", order
    # The canonical mapping writes 64-bit numbers as text.
    assert order["total"] == {"minorUnits": "1000", "currency": "EUR"}, order

    refusal = await request("orders.v1.CreateOrder", {"customerId": customer_id})
    assert refusal.headers["Nats-Service-Error-Code"] == "400", refusal.headers
    error = refusal.headers["Nats-Service-Error"]
    assert error == "INVALID_ARGUMENT: total: is required", error
    print(f"approved {order['orderId']}")
    await connection.close()


asyncio.run(main(sys.argv[1]))
