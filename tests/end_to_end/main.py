"""Publisher, three servers, five gateways, two hundred browsers, and faults.

Every event goes to each server, in one order. A gateway follows one of the servers, and goes to
another when that is gone: its cursor is of another epoch then. Judged is what browsers see:

- a session that is revoked receives nothing that was published after its invalidation, and ends;
- no session ends as revoked that no invalidation names;
- a gap within an epoch is healed by the list of missed revocations;
- the time from publishing an invalidation to the end of the session's stream is compared to that
  from publishing an event to its arrival. (Both have the pauses of everything that is held up.)
"""

import argparse
import asyncio
import pathlib
import random
import shutil
import signal
import socket
import sys
import tempfile
import time

import aiohttp

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))


def make_stubs(directory):
    from grpc_tools import protoc

    files = sorted(str(path) for path in (ROOT / "proto/galaxy").rglob("*.proto"))
    proto = f"--proto_path={ROOT / 'proto'}"
    options = [proto, f"--python_out={directory}", f"--grpc_python_out={directory}"]
    if protoc.main(["protoc", *options, *files]) != 0:
        sys.exit("the protobuf files do not compile")
    sys.path.insert(0, directory)


SERVERS = 3
GATEWAYS = 5
BROWSERS = 200
# Both together. A session lives for some ten seconds.
EVENTS_PER_SECOND = 200
REVOCATIONS_PER_SECOND = 12
# How long a gateway may serve that hears of no server, in seconds.
LEASE = 10
# How long servers may take to have everything, once nothing happens any more.
SETTLE_SECONDS = 60


def free_addresses(count):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = ["%s:%d" % listener.getsockname() for listener in listeners]
    for listener in listeners:
        listener.close()
    return addresses


async def publish(publisher, browsers, revocations, chance, until):
    """Events and invalidations for those who are there."""
    while not until.is_set():
        browser = chance.choice(browsers)
        session = browser.session
        if chance.random() < REVOCATIONS_PER_SECOND / EVENTS_PER_SECOND:
            name = session.name if session and chance.random() < 0.7 else ""
            number = publisher.revoke(browser.user, name)
            revocations.append((number, browser.user, name))
        elif session and chance.random() < 0.2:
            publisher.send(browser.user, session.name)
        else:
            publisher.send(browser.user)
        await asyncio.sleep(chance.expovariate(EVENTS_PER_SECOND))


async def run(arguments, directory):
    from faults import gateway, server

    # Faults do not depend on how much was published.
    faulty, chance = (random.Random(f"{arguments.seed} {of}") for of in ("faults", "events"))
    listen, publish_listen, browse = (free_addresses(n) for n in (SERVERS, SERVERS, GATEWAYS))
    parts = []
    try:
        servers = []
        for at, addresses in enumerate(zip(listen, publish_listen)):
            servers.append(server(f"server-{at}", *addresses))
            parts.append(servers[-1])
        gateways = []
        for at, address in enumerate(browse):
            # Each has another server that it likes best.
            order = listen[at % SERVERS :] + listen[: at % SERVERS]
            state = directory / f"gateway-{at}"
            gateways.append(
                gateway(f"gateway-{at}", arguments.gateway, address, state, order, LEASE)
            )
            parts.append(gateways[-1])
        return await follow(arguments, servers, gateways, browse, publish_listen, faulty, chance)
    finally:
        for part in parts:
            part.kill()


async def follow(arguments, servers, gateways, browse, publish_listen, faulty, chance):
    from browsers import Browser
    from faults import Faults
    from publisher import Publisher
    from verdict import Verdict

    publisher = Publisher(publish_listen)
    revocations = []
    over = asyncio.Event()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        browsers = [
            # Two for each user, at different gateways.
            Browser(http, f"user-{at // 2}", browse[at % GATEWAYS])
            for at in range(BROWSERS)
        ]
        following = [asyncio.create_task(browser.run()) for browser in browsers]
        faults = Faults(servers, gateways, publisher, faulty)
        await asyncio.sleep(2)
        publishing = asyncio.create_task(
            publish(publisher, browsers, revocations, chance, over)
        )
        disturbing = asyncio.create_task(faults.run(over))
        began = time.monotonic()
        while time.monotonic() - began < arguments.seconds:
            done, _ = await asyncio.wait(
                [publishing, disturbing, *following], timeout=1, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                # None of them ends by itself but by an error.
                await task
        over.set()
        await asyncio.gather(publishing, disturbing)
        # Everything that was published arrives, and every invalidation is enforced.
        async with asyncio.timeout(SETTLE_SECONDS):
            while publisher.is_behind():
                await asyncio.sleep(0.1)
        await asyncio.sleep(LEASE + 2)
        verdict = Verdict(publisher, browsers, gateways, revocations, faults)
        publisher.stop()
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    for part in gateways + servers:
        code = await asyncio.to_thread(part.stop)
        if code != 0 or "panicked" in part.log():
            verdict.violations.append(f"{part.name} ended with {code}:\n{part.log()[-2000:]}")
    return verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="for how long faults happen")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--gateway", default=ROOT / "target/debug/examples/gateway")
    parser.add_argument(
        "--max-ratio",
        type=float,
        help="fail if the p99 of enforcement is more than so many times that of delivery",
    )
    arguments = parser.parse_args()
    # As Ctrl-C does: everything that was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="galaxy-push-end-to-end-"))
    try:
        make_stubs(str(directory))
        print("seed", arguments.seed, flush=True)
        verdict = asyncio.run(run(arguments, directory))
        print(verdict.report())
    finally:
        shutil.rmtree(directory)
    if verdict.violations:
        sys.exit("a promise was broken")
    # Also where there is none, because nothing was delivered.
    if arguments.max_ratio and not verdict.ratio() <= arguments.max_ratio:
        sys.exit(f"the ratio {verdict.ratio():.2f} is more than {arguments.max_ratio}")


if __name__ == "__main__":
    main()
