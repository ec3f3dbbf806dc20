"""Takes the arguments of the nats command line, as far as docs/api.md uses them.

Usage: nats_cli.py request SUBJECT BODY -H Content-Type:application/json [--raw] [--timeout 30s]
With --raw it prints the reply's body alone; without, what it does and the reply's headers besides, to standard
error and with the time before each, as that does. NATS_URL says where NATS is.
"""

import argparse
import asyncio
import os
import sys
import time

import nats


def log(line):
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr)


async def main():
    parser = argparse.ArgumentParser(prog="nats")
    parser.add_argument("command", choices=["request"])
    parser.add_argument("subject")
    parser.add_argument("body")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--timeout", default="5s")
    arguments = parser.parse_args()
    headers = dict(header.split(":", 1) for header in arguments.headers)
    connection = await nats.connect(os.environ["NATS_URL"])
    if not arguments.raw:
        log(f'Sending request on "{arguments.subject}"')
    began = time.monotonic()
    reply = await connection.request(
        arguments.subject,
        arguments.body.encode(),
        timeout=float(arguments.timeout.removesuffix("s")),
        headers=headers,
    )
    if not arguments.raw:
        log(f"Received with rtt {(time.monotonic() - began) * 1000:.3f}ms")
        for name, value in (reply.headers or {}).items():
            log(f"{name}: {value}")
    print(reply.data.decode())
    await connection.close()


asyncio.run(main())
