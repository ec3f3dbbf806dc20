"""Takes grpcurl's arguments, as far as docs/api.md uses them, and answers as it does, by reflection.

Usage: grpcurl.py -plaintext [-d JSON] ADDRESS {list | SERVICE/METHOD}
"""

import argparse
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

CALL_SECONDS = 60
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


class Database(ProtoReflectionDescriptorDatabase):
    """Asks v1 of the reflection, as grpcurl does first, whose messages are those of v1alpha under another name."""

    def __init__(self, channel):
        super().__init__(channel)
        self._stub.ServerReflectionInfo = channel.stream_stream(
            REFLECTION,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )


def main():
    parser = argparse.ArgumentParser(prog="grpcurl")
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-d", default="{}")
    parser.add_argument("address")
    parser.add_argument("what")
    arguments = parser.parse_args()
    channel = grpc.insecure_channel(arguments.address)
    database = Database(channel)
    if arguments.what == "list":
        print("\n".join(sorted(database.get_services())))
        return
    service, method = arguments.what.split("/")
    pool = descriptor_pool.DescriptorPool(database)
    described = pool.FindServiceByName(service).FindMethodByName(method)
    request = message_factory.GetMessageClass(described.input_type)
    response = message_factory.GetMessageClass(described.output_type)
    kind = channel.unary_stream if described.server_streaming else channel.unary_unary
    call = kind(
        f"/{service}/{method}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    asked = json_format.Parse(arguments.d, request(), descriptor_pool=pool)
    try:
        answer = call(asked, timeout=CALL_SECONDS)
        for one in answer if described.server_streaming else [answer]:
            print(json_format.MessageToJson(one, descriptor_pool=pool))
    except grpc.RpcError as error:
        name = "".join(word.capitalize() for word in error.code().name.split("_"))
        print(f"ERROR:\n  Code: {name}\n  Message: {error.details()}", file=sys.stderr)
        sys.exit(64 + error.code().value[0])


main()
