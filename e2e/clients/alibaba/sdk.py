"""Calls Function Compute or EventBridge with its official SDK, or says how that SDK signs a request. What to do is JSON on standard input:

    {"sdk": "fc2-event", "do": "call", "endpoint": "127.0.0.1:9000", "key": ["id", "secret", "token or null"], …}
    {"sdk": "fc2-event", "do": "sign", "key": …, "request": ["POST", "/target", {"header": "value"}, "body in Base64"]}

`sign` prints the Authorization. The folder with the SDK is on PYTHONPATH."""

import base64
import hashlib
import io
import json
import re
import sys
import urllib.parse

# === Function Compute 2.0 ===


def fc2(job):
    import fc2

    key, secret, token = job["key"]
    return fc2.Client(endpoint=f"http://{job['endpoint']}", accessKeyID=key, accessKeySecret=secret, securityToken=token or "")


def call_fc2_event(job):
    headers = {"x-fc-invocation-type": "Sync"}
    fc2(job).invoke_function(job["service"], job["function"], job["body"].encode(), headers=headers, qualifier=job["qualifier"])


def call_fc2_http(job):
    fc2(job).do_http_request("POST", f"{job['service']}.{job['qualifier']}", job["function"], job["path"], headers={"content-type": "text/plain"},
                             params=job["query"], body=job["body"].encode())


def sign_fc2(job, method, target, headers, body, *, trigger):
    from fc2.auth import Auth

    path, _, query = target.partition("?")
    query = urllib.parse.parse_qs(query, keep_blank_values=True) if trigger else None
    return Auth(job["key"][0], job["key"][1]).sign_request(method, urllib.parse.unquote(path), headers, query)


# === Function Compute 3.0 and EventBridge's control API: Alibaba's signature version 3 ===


def acs3_config(job):
    from alibabacloud_tea_openapi.utils_models import Config

    key, secret, token = job["key"]
    return Config(access_key_id=key, access_key_secret=secret, security_token=token, endpoint=job["endpoint"], protocol="http")


def call_fc3_event(job):
    from alibabacloud_fc20230330 import models
    from alibabacloud_fc20230330.client import Client
    from darabonba.runtime import RuntimeOptions

    request = models.InvokeFunctionRequest(qualifier=job["qualifier"], body=io.BytesIO(job["body"].encode()))
    headers = models.InvokeFunctionHeaders(x_fc_invocation_type="Sync", x_fc_log_type="None")
    Client(acs3_config(job)).invoke_function_with_options(job["function"], request, headers, RuntimeOptions())


def call_bus_control(job):
    from alibabacloud_eventbridge20200401 import models
    from alibabacloud_eventbridge20200401.client import Client

    event = job["event"]
    listed = models.PutEventsRequestEventList(
        data=event["data"], data_content_type=event["datacontenttype"], id=event["id"], source=event["source"], spec_version="1.0",
        subject=event["subject"], time=event["time"], type=event["type"])
    Client(acs3_config(job)).put_events(models.PutEventsRequest(event_bus_name=job["bus"], event_list=[listed]))


def sign_acs3(job, method, target, headers, body):
    """An action's, in which every header is signed that the SDK sends; the gateway's HTTP client adds its own behind the signature."""
    from alibabacloud_tea_openapi.utils import Utils
    from darabonba.request import DaraRequest

    request = of(DaraRequest(), method, target, signed_headers(headers))
    hashed = hashlib.sha256(body).hexdigest()
    assert headers["x-acs-content-sha256"] == hashed, "the hash of the body"
    return Utils.get_authorization(request, "ACS3-HMAC-SHA256", hashed, *job["key"][:2])


def sign_fc3_http(job, method, target, headers, body):
    """As Function Compute's documentation has it for HTTP triggers that check signatures: no SDK sends such a request."""
    from alibabacloud_openapi_util.client import Client
    from Tea.request import TeaRequest

    request = of(TeaRequest(), method, target, signed_headers(headers))
    return Client.get_authorization(request, "ACS3-HMAC-SHA256", "", *job["key"][:2])


def signed_headers(headers):
    names = re.search("SignedHeaders=([^,]*)", headers["authorization"])[1].split(";")
    return {name: headers[name] for name in names}


def of(request, method, target, headers):
    path, _, query = target.partition("?")
    request.method, request.pathname, request.headers = method, path, headers
    request.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    return request


# === EventBridge's data API ===


def call_bus_data(job):
    from alibabacloud_eventbridge import models
    from alibabacloud_eventbridge.client import Client

    key, secret, token = job["key"]
    event, config = job["event"], models.Config()
    config.access_key_id, config.access_key_secret, config.security_token, config.endpoint = key, secret, token, job["endpoint"]
    sent = models.CloudEvent(datacontenttype=event["datacontenttype"], id=event["id"], source=event["source"], subject=event["subject"],
                             time=event["time"], type=event["type"], data=json.dumps(event["data"]).encode(),
                             extensions={"aliyuneventbusname": job["bus"]})
    Client(config).put_events([sent])


def sign_bus_data(job, method, target, headers, body):
    from alibabacloud_eventbridge_util.client import Client
    from Tea.request import TeaRequest

    request = of(TeaRequest(), method, target, headers)
    key, secret, _ = job["key"]
    return f"acs:{key}:{Client.get_signature(Client.get_string_to_sign(request), secret)}"


CALLS = {"fc2-event": call_fc2_event, "fc2-http": call_fc2_http, "fc3-event": call_fc3_event, "bus-data": call_bus_data, "bus-control": call_bus_control}
SIGNS = {
    "fc2-event": lambda *request: sign_fc2(*request, trigger=False),
    "fc2-http": lambda *request: sign_fc2(*request, trigger=True),
    "fc3-event": sign_acs3,
    "fc3-http": sign_fc3_http,
    "bus-data": sign_bus_data,
    "bus-control": sign_acs3,
}

job = json.load(sys.stdin)
if job["do"] == "call":
    CALLS[job["sdk"]](job)
else:
    method, target, headers, body = job["request"]
    print(SIGNS[job["sdk"]](job, method, target, headers, base64.b64decode(body)))
