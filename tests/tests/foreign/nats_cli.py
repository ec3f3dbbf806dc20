"""Takes the arguments of the nats command line, as far as docs/api.md uses them.

Usage: nats_cli.py request SUBJECT BODY -H Content-Type:application/json --raw [--timeout 30s]
It prints the reply's body alone, as --raw does. NATS_URL says where NATS is.
"""

import argparse
import asyncio
import os

import nats


async def main():
    parser = argparse.ArgumentParser(prog="nats")
    parser.add_argument("command", choices=["request"])
    parser.add_argument("subject")
    parser.add_argument("body")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("--raw", action="store_true", required=True)
    parser.add_argument("--timeout", default="5s")
    arguments = parser.parse_args()
    headers = dict(header.split(":", 1) for header in arguments.headers)
    connection = await nats.connect(os.environ["NATS_URL"])
    reply = await connection.request(
        arguments.subject,
        arguments.body.encode(),
        timeout=float(arguments.timeout.removesuffix("s")),
        headers=headers,
    )
    print(reply.data.decode())
    await connection.close()


asyncio.run(main())
