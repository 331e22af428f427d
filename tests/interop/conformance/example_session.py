"""A client of the example gateway, as the conformance kit's --session-command.

It logs in as the user that it is given, says which session it has, and writes the payloads of
the signed envelopes that arrive.
"""

import base64
import http.client
import json
import os
import sys


def request(method, path, body=None, **headers):
    address = sys.argv[1]
    connection = http.client.HTTPConnection(address)
    headers |= {"origin": f"http://{address}", "content-type": "application/json"}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"{method} {path}: {response.status} {response.read()}")
    return response


def main():
    body = json.dumps({"user": os.environ["CONFORMANCE_USER"]})
    logged_in = request("POST", "/login", body)
    cookie = logged_in.getheader("set-cookie").split(";")[0]
    session = json.load(logged_in)["session"]
    stream = request("GET", "/sse", cookie=cookie)
    print("session:", session, flush=True)
    for line in stream:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "data":
            envelope = json.loads(value)
            if "payload" in envelope:
                payload = envelope["payload"]
                value = base64.urlsafe_b64decode(payload + "==").decode()
            print(value, flush=True)


if __name__ == "__main__":
    main()
