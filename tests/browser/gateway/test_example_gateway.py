"""What a user sees of a gateway: events that are signed, a session that is revoked, a restart."""

import http.client
import json
import signal
import time

import pytest
from child import SECONDS, Child
from playwright.sync_api import expect

from deployment import GATEWAY

STREAMS = {
    "WebSocket": "Connect by WebSocket",
    "server-sent events": "Connect by server-sent events",
}


def connect(page, stream="WebSocket"):
    page.get_by_role("button", name=STREAMS[stream]).click()
    expect(page.locator("#state")).to_have_text(f"Connected by {stream}")
    return page


def payloads(page):
    return page.locator("#events .payload")


@pytest.mark.parametrize("stream", STREAMS)
def test_events_arrive_signed_and_unchanged(deployment, log_in, stream):
    ada = connect(log_in(deployment, "ada"), stream)
    ben = connect(log_in(deployment, "ben"), stream)
    sent = ['{"n": 1.50,  "text":"ünï<b>"}', '{"n":2}']
    for payload in sent:
        deployment.send("ada", payload)
    deployment.send("ben", "for ben")
    # The newest is on top.
    expect(payloads(ada)).to_have_text([text.replace("  ", " ") for text in reversed(sent)])
    assert payloads(ada).last.text_content() == sent[0]
    expect(payloads(ben)).to_have_text(["for ben"])
    for page, count in ((ada, 2), (ben, 1)):
        expect(page.locator('[data-signature="valid"]')).to_have_count(count)
        expect(page.locator(".signature").first).to_have_text("Signature valid")


def altered(change):
    """What comes over a WebSocket of the page goes through `change` before."""

    def prepare(page):
        def route(socket):
            server = socket.connect_to_server()
            server.on_message(lambda text: socket.send(json.dumps(change(json.loads(text)))))

        page.route_web_socket("**/ws", route)

    return prepare


def test_what_was_altered_on_the_way_is_not_believed(deployment, log_in):
    def change(envelope):
        # Another payload of the same length, in the alphabet that it is written in.
        return envelope | {"payload": envelope["payload"].swapcase()}

    page = connect(log_in(deployment, "ada", altered(change)))
    deployment.send("ada", "pay 10")
    expect(page.locator(".signature")).to_have_text("Not to be believed: its signature is not valid")
    expect(payloads(page)).to_have_text(["not shown"])


def test_what_was_signed_for_somebody_else_is_not_believed(deployment, log_in):
    taken = []

    def take(envelope):
        taken.append(envelope)
        return envelope

    ben = connect(log_in(deployment, "ben", altered(take)))
    deployment.send("ben", "for ben")
    expect(ben.locator(".signature")).to_have_text("Signature valid")
    ada = connect(log_in(deployment, "ada", altered(lambda _: taken[0])))
    deployment.send("ada", "for ada")
    expect(ada.locator(".signature")).to_have_text("Not to be believed: it is for another session")


@pytest.mark.parametrize("stream", STREAMS)
def test_a_session_that_is_revoked_ends_and_its_cookie_is_of_no_use(deployment, log_in, stream):
    page = connect(log_in(deployment, "ada"), stream)
    other = connect(log_in(deployment, "ben"), stream)
    deployment.ban("ada", "banned")
    expect(page.locator("#state")).to_have_text("The session is revoked: banned")
    expect(page.locator("#login")).to_be_visible()
    page.reload()
    expect(page.locator("#state")).to_have_text("Not logged in")
    # Nobody else is touched.
    deployment.send("ben", "still here")
    expect(payloads(other)).to_have_text(["still here"])


def test_a_slow_request_of_a_revoked_session_stops_in_the_middle(deployment, log_in):
    page = log_in(deployment, "ada")
    page.get_by_role("button", name="Start slow work").click()
    expect(page.locator("#work-state")).to_have_text("Working")
    deployment.gateway.wait_for("the effect of a step")
    deployment.ban("ada", "banned")
    expect(page.locator("#work-state")).to_contain_text('the session is revoked: "banned"')
    steps = int(page.locator("#work-state").inner_text().split()[2])
    assert 1 <= steps < 100
    # What was not done then is never done.
    time.sleep(0.5)
    assert deployment.gateway.log().count("the effect of a step") == steps


def test_a_ban_is_proven(deploy, log_in):
    deployment = deploy("--max-lease=8s", lease=8)
    page = connect(log_in(deployment, "ada"))
    said = deployment.ban("ada", "banned", "--wait-enforced", "90s")
    assert "proven: 1 of 1 gateways have enforced it" in said
    expect(page.locator("#state")).to_have_text("The session is revoked: banned")


def test_a_restart_goes_on_where_it_was(deployment, log_in):
    ada = connect(log_in(deployment, "ada"))
    ben = connect(log_in(deployment, "ben"))
    deployment.send("ada", "before")
    expect(ada.locator(".signature")).to_have_text("Signature valid")
    deployment.stop_gateway()
    for page in (ada, ben):
        expect(page.locator("#state")).to_contain_text("The gateway is stopping")
    # Nobody of the gateway is there to see it.
    deployment.ban("ben", "banned")
    deployment.start_gateway()
    assert "resumed" in deployment.gateway.log()
    # The same session, and the same key: the page has it from before.
    connect(ada)
    deployment.send("ada", "after")
    expect(payloads(ada).first).to_have_text("after")
    expect(ada.locator('[data-signature="valid"]')).to_have_count(2)
    ben.reload()
    expect(ben.locator("#state")).to_have_text("Not logged in")


def ask(deployment, method, path, body=None, **fields):
    connection = http.client.HTTPConnection(deployment.address, timeout=SECONDS)
    try:
        connection.request(method, path, body=body, headers=fields)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_a_router_that_does_not_hear_from_the_server_serves_nobody(deploy, log_in):
    deployment = deploy("--max-lease=2s", lease=2)

    def until(serves):
        ends = time.monotonic() + SECONDS
        while deployment.serves() != serves:
            assert time.monotonic() < ends
            time.sleep(0.05)

    page = log_in(deployment, "ada")
    deployment.server.signal(signal.SIGSTOP)
    until(False)
    page.get_by_role("button", name="Start slow work").click()
    expect(page.locator("#work-state")).to_contain_text("has not heard from the backend")
    deployment.server.signal(signal.SIGCONT)
    until(True)
    connect(page)
    deployment.send("ada", "again")
    expect(payloads(page)).to_have_text(["again"])


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_a_page_from_elsewhere_can_do_nothing_with_a_cookie(deployment):
    own = {"Origin": deployment.url}
    log_in = json.dumps({"user": "ada"})
    kind = {"Content-Type": "application/json"}
    status, fields, _ = ask(deployment, "POST", "/login", log_in, **kind, **own)
    assert status == 200
    cookie = fields["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    has_cookie = {"Cookie": cookie.split(";")[0]}
    assert ask(deployment, "GET", "/ws", **UPGRADE, **own, **has_cookie)[0] == 101
    for elsewhere in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        for method, path, more in (
            ("GET", "/ws", UPGRADE),
            ("POST", "/work?steps=1", {}),
            ("POST", "/login", kind),
            ("POST", "/logout", {}),
        ):
            status = ask(deployment, method, path, **more, **elsewhere, **has_cookie)[0]
            assert status == 403, (elsewhere, path)
    evil = {"Origin": "https://evil.example"}
    assert ask(deployment, "GET", "/sse", **evil, **has_cookie)[0] == 403
    assert ask(deployment, "GET", "/session", **has_cookie)[0] == 200


@pytest.mark.parametrize("path", ["/ws", "/sse", "/session", "/work?steps=1"])
@pytest.mark.parametrize("cookie", [None, "example_gateway_session=", "example_gateway_session=x"])
def test_without_a_session_nothing_is_served(deployment, path, cookie):
    fields = {"Origin": deployment.url}
    if cookie is not None:
        fields["Cookie"] = cookie
    method = "POST" if path.startswith("/work") else "GET"
    more = UPGRADE if path == "/ws" else {}
    assert ask(deployment, method, path, **fields, **more)[0] == 401


@pytest.mark.parametrize(
    "path, body",
    [
        ("/login", "{}"),
        ("/login", '{"user":""}'),
        ("/login", json.dumps({"user": "x" * 101})),
        ("/login", "not JSON"),
        ("/login", '{"user":7}'),
        ("/login", json.dumps({"user": "x" * 5000})),
        ("/work?steps=101", ""),
        ("/work?steps=-1", ""),
        ("/work", ""),
    ],
)
def test_what_cannot_be_is_refused(deployment, path, body):
    kind = {"Content-Type": "application/json"}
    status = ask(deployment, "POST", path, body, Origin=deployment.url, **kind)[0]
    assert status in (400, 413, 422), status


def test_a_session_that_ends_among_events_does_not_stop_the_next_one(deployment, log_in):
    page = connect(log_in(deployment, "ada"))
    lines = [
        json.dumps({"client_event": {"user_id": "ada", "kind": "chat", "payload": n}}) for n in range(50)
    ]
    lines.append(json.dumps({"session_invalidation": {"user_id": "ada", "reason": "banned"}}))
    deployment.publish_lines(lines)
    expect(page.locator("#state")).to_have_text("The session is revoked: banned")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#state")).to_have_text("Logged in")
    connect(page)
    deployment.send("ada", "hello again")
    expect(payloads(page)).to_have_text(["hello again"])


def test_two_cookies_are_none_and_a_new_log_in_ends_the_session_before_it(deployment):
    def log_in(**more):
        body = json.dumps({"user": "ada"})
        kind = {"Content-Type": "application/json", "Origin": deployment.url}
        status, fields, _ = ask(deployment, "POST", "/login", body, **kind, **more)
        assert status == 200
        return fields["set-cookie"].split(";")[0]

    first = log_in()
    assert ask(deployment, "GET", "/session", Cookie=first)[0] == 200
    assert ask(deployment, "GET", "/session", Cookie=f"{first}; {log_in()}")[0] == 401
    second = log_in(Cookie=first)
    assert ask(deployment, "GET", "/session", Cookie=first)[0] == 401
    assert ask(deployment, "GET", "/session", Cookie=second)[0] == 200
    elsewhere = {"Sec-Fetch-Site": "same-site"}
    assert ask(deployment, "GET", "/session", Cookie=second, **elsewhere)[0] == 403


def test_a_folder_that_others_may_use_is_refused(deployment, tmp_path):
    def refused(folder):
        gateway = Child(GATEWAY, f"--connect={deployment.server.gateways}", f"--state={folder}", "--listen=127.0.0.1:0")
        assert gateway.wait() == 1
        return gateway.log()

    assert "another gateway uses it" in refused(deployment.folder)
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    assert "others may look into it" in refused(shared)


def test_files_of_the_gateway_are_for_nobody_else_and_name_no_token(deployment, log_in):
    page = log_in(deployment, "ada")
    # With the next event.
    deployment.send("ada", "x")
    ends = time.monotonic() + SECONDS
    while not (deployment.folder / "sessions.json").exists():
        assert time.monotonic() < ends
        time.sleep(0.01)
    [cookie] = page.context.cookies()
    assert deployment.folder.stat().st_mode & 0o777 == 0o700
    files = {path.name: path for path in deployment.folder.iterdir()}
    assert {"cursor", "key.pk8", "sessions.json"} <= files.keys()
    for path in files.values():
        assert path.stat().st_mode & 0o777 == 0o600, path
        assert cookie["value"].encode() not in path.read_bytes()
