"""Runs the calls of a JSON file (standard input) with aliyun-api-gateway-sign and prints what came back.

That client asks for port 80 whatever address it is given, and signs a query as it is written in the URL."""

import base64
import json

from loopback import job

from com.aliyun.api.gateway.sdk import client
from com.aliyun.api.gateway.sdk.http import request


def call(signer, base, c):
    query = "&".join(f"{n}={v}" for n, v in c.get("query") or [])
    url = c["path"] + (f"?{query}" if query else "")
    made = request.Request(host=base.rsplit(":", 1)[0], protocol="http", url=url, method=c["method"], time_out=20)
    if "form" in c:
        made.set_content_type("application/x-www-form-urlencoded")
        made.set_body(dict(c["form"]))
    elif "bytes" in c:
        made.set_content_type("application/octet-stream")
        made.set_body(base64.b64decode(c["bytes"]))
    status, headers, body = signer.execute(made)
    return {"name": c["name"], "status": status, "body": body, "headers": {n.lower(): v for n, v in headers or []}}


found = job()
signer = client.DefaultClient(app_key=found["key"], app_secret=found["secret"])
print(json.dumps([call(signer, found["base"], c) for c in found["calls"]]))
