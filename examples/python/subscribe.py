"""Prints `host source sequence text` for every line that a selector selects, each exactly once.

    python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
    .venv/bin/python subscribe.py --relay 127.0.0.1:7171 --selector 'host=build-*'

The stubs are made from ../../proto at each start (grpc_tools); nothing generated needs to be kept.
"""

import argparse
import pathlib
import sys
import time

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "proto"))
pb, log = grpc.protos_and_services("millstream/v1/log.proto")
block_pb = grpc.protos("millstream/v1/block.proto")


# Room for the protocol's 4 MiB messages; pings that find a relay which vanished without a word.
OPTIONS = [("grpc.max_receive_message_length", 5 << 20), ("grpc.keepalive_time_ms", 15_000)]


def varints(column):
    """The numbers of a column: base-128, least significant group first."""
    value = shift = 0
    for byte in column:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0


def lines(block):
    """(sequence, text) of each line. Only a filtered block has gaps between its sequences."""
    steps = list(varints(block.sequences)) or [0, 1, 1, block.line_count - 1]
    deltas = (delta for delta, count in zip(steps[::2], steps[1::2]) for _ in range(count))
    sequence = block.first_sequence
    for delta, text in zip(deltas, block.text.split(b"\n")):
        sequence += delta
        yield sequence, text


def subscribe(args):
    cursor, positions, names = b"", {}, {}
    while True:
        request = pb.TailRequest(selector=args.selector, from_beginning=True, follow=not args.until_caught_up)
        request.codecs.append(block_pb.CODEC_NONE)
        if cursor:
            request.cursor = cursor  # Where every stream stood, as the relay last told ...
        for stream_id, next_sequence in positions.items():  # ... and what was printed since.
            request.positions.add(stream_id=stream_id, next_sequence=next_sequence)
        try:
            with grpc.insecure_channel(args.relay, options=OPTIONS) as channel:
                for message in log.LogServiceStub(channel).Tail(request):
                    kind = message.WhichOneof("message")
                    if kind == "stream":
                        names[message.stream.stream_id] = message.stream.labels
                    elif kind == "block":
                        labels = names[message.block.stream_id]
                        for sequence, text in lines(message.block.block):
                            print(labels["host"], labels["source"], sequence, text.decode(errors="replace"))
                            positions[message.block.stream_id] = sequence + 1
                        sys.stdout.flush()
                    elif kind == "gap":
                        print("gap:", message.gap.message, file=sys.stderr)
                        positions[message.gap.stream_id] = message.gap.next_sequence
                    elif kind in ("caught_up", "heartbeat"):
                        cursor = getattr(message, kind).cursor
                        positions.clear()  # The cursor stands after everything printed so far.
                        if kind == "caught_up" and args.until_caught_up:
                            return
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED):
                sys.exit(f"subscribe.py: {error.details()}")
            print(f"subscribe.py: {args.relay}: {error.details()}; trying again", file=sys.stderr)
        time.sleep(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--relay", default="127.0.0.1:7171", metavar="HOST:PORT")
    parser.add_argument("--selector", default="")
    parser.add_argument("--until-caught-up", action="store_true", help="end after the lines that are stored now")
    try:
        subscribe(parser.parse_args())
    except KeyboardInterrupt:
        sys.exit(130)
