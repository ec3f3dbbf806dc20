"""A gRPC client without generated code: it learns the services' messages from their reflection.

Usage: grpc_client.py ORDERS_ADDRESS CUSTOMERS_ADDRESS
"""

import sys
import time

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

CALL_SECONDS = 30
SETTLE_SECONDS = 60


class Service:
    """A service that describes itself."""

    def __init__(self, address, name):
        self.channel = grpc.insecure_channel(address)
        database = ProtoReflectionDescriptorDatabase(self.channel)
        listed = database.get_services()
        assert name in listed, f"{name} is not among {listed}"
        pool = descriptor_pool.DescriptorPool(database)
        self.descriptor = pool.FindServiceByName(name)

    def call(self, method, **fields):
        described = self.descriptor.FindMethodByName(method)
        request = message_factory.GetMessageClass(described.input_type)
        response = message_factory.GetMessageClass(described.output_type)
        call = self.channel.unary_unary(
            f"/{self.descriptor.full_name}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return call(request(**fields), timeout=CALL_SECONDS)


def state(order):
    """The name of the order's state."""
    field = order.DESCRIPTOR.fields_by_name["state"]
    return field.enum_type.values_by_number[order.state].name


def main(orders_address, customers_address):
    orders = Service(orders_address, "orders.v1.OrderService")
    customers = Service(customers_address, "customers.v1.CustomerService")

    limit = {"minor_units": 1000, "currency": "EUR"}
    customer = customers.call("CreateCustomer", name="Grace", credit_limit=limit).customer
    total = {"minor_units": 1000, "currency": "EUR"}
    order = orders.call("CreateOrder", customer_id=customer.customer_id, total=total).order
    assert state(order) == "ORDER_STATE_PENDING", order
    deadline = time.monotonic() + SETTLE_SECONDS
    while state(order) == "ORDER_STATE_PENDING" and time.monotonic() < deadline:
        time.sleep(0.02)
        order = orders.call("GetOrder", order_id=order.order_id).order
    assert state(order) == "ORDER_STATE_APPROVED", order

    try:
        orders.call("CreateOrder", customer_id=customer.customer_id, total={"currency": "EUR"})
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
        assert error.details().startswith("total.minor_units: "), error
    else:
        raise AssertionError("an order over nothing was taken")
    print(f"approved {order.order_id}")


main(*sys.argv[1:])
