"""Lists, describes and calls a relay's services through gRPC reflection, as grpcurl does; no .proto files.

    python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
    .venv/bin/python reflect.py 127.0.0.1:7171 list
    .venv/bin/python reflect.py 127.0.0.1:7171 describe millstream.v1.LogService
    .venv/bin/python reflect.py 127.0.0.1:7171 call millstream.v1.LogService/ListStreams '{"pageSize": 2}'
"""

import argparse
import sys

import grpc
from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def describe(pool, name):
    """Prints a service's calls, or a message's fields."""
    try:
        service = pool.FindServiceByName(name)
    except KeyError:
        message = descriptor_pb2.DescriptorProto()
        pool.FindMessageTypeByName(name).CopyToProto(message)
        print(message, end="")
        return
    print(f"service {name} {{")
    for method in service.methods:
        request, response = (
            ("stream " if streaming else "") + kind.full_name
            for streaming, kind in (
                (method.client_streaming, method.input_type),
                (method.server_streaming, method.output_type),
            )
        )
        print(f"  rpc {method.name} ( {request} ) returns ( {response} );")
    print("}")


def call(channel, pool, method, body):
    """Makes one call with a JSON request and prints each response as JSON."""
    service, _, name = method.rpartition("/")
    descriptor = pool.FindServiceByName(service).FindMethodByName(name)
    request = json_format.Parse(body, message_factory.GetMessageClass(descriptor.input_type)())
    response_class = message_factory.GetMessageClass(descriptor.output_type)
    shape = channel.unary_stream if descriptor.server_streaming else channel.unary_unary
    responses = shape(f"/{method}", type(request).SerializeToString, response_class.FromString)(request)
    for response in responses if descriptor.server_streaming else [responses]:
        print(json_format.MessageToJson(response), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("relay", metavar="HOST:PORT")
    parser.add_argument("action", choices=["list", "describe", "call"])
    parser.add_argument("name", nargs="?", help="service or message to describe, or SERVICE/METHOD to call")
    parser.add_argument("body", nargs="?", default="{}", help="the request as JSON")
    args = parser.parse_args()
    if args.action != "list" and not args.name:
        parser.error(f"{args.action} needs a name")
    with grpc.insecure_channel(args.relay, options=[("grpc.max_receive_message_length", 5 << 20)]) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        try:
            if args.action == "list":
                print("\n".join(sorted(database.get_services())))
            elif args.action == "describe":
                describe(pool, args.name)
            else:
                call(channel, pool, args.name, args.body)
        except grpc.RpcError as error:
            sys.exit(f"reflect.py: {args.relay}: {error.details()} ({error.code().name})")
        except KeyError as error:
            sys.exit(f"reflect.py: {args.relay} has no {error}; `reflect.py {args.relay} list` shows what it has")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
