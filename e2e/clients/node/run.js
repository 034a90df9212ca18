// Runs the calls of a JSON file (standard input) with the official client and prints what came back.
// The only help it gets: the test's host name resolves to loopback.
'use strict';
const dns = require('dns');
const net = require('net');
dns.lookup = (host, options, done) => {
  if (typeof options === 'function') [done, options] = [options, {}];
  const address = net.isIP(host) ? host : '127.0.0.1';
  options && options.all ? done(null, [{address, family: 4}]) : done(null, address, 4);
};
const {Client} = require('aliyun-api-gateway');

const pairs = (list) => {
  const found = {};
  for (const [name, value] of list || []) found[name] = name in found ? [].concat(found[name], value) : value;
  return found;
};

async function call(client, base, c) {
  const opts = {headers: Object.assign({}, c.headers), query: pairs(c.query), signHeaders: c.signHeaders, timeout: 20000};
  if (c.form) {
    opts.data = pairs(c.form);
    opts.headers['content-type'] = 'application/x-www-form-urlencoded; charset=utf-8';
  } else if (c.json !== undefined) {
    opts.data = c.json;
    opts.headers['content-type'] = 'application/json; charset=utf-8';
  } else if (c.bytes) {
    opts.data = Buffer.from(c.bytes, 'base64');
    opts.headers['content-type'] = 'application/octet-stream';
  }
  try {
    const body = await client[c.method.toLowerCase()](base + encodeURI(c.path), opts);
    return {name: c.name, status: 200, headers: {}, body: typeof body === 'string' ? body : JSON.stringify(body)};
  } catch (error) {
    if (!error.data) return {name: c.name, status: 0, headers: {}, body: String(error.stack)};
    return {name: c.name, status: error.code, headers: error.data.headers, body: ''};
  }
}

(async () => {
  const job = JSON.parse(require('fs').readFileSync(0, 'utf8'));
  const client = new Client(job.key, job.secret);
  const results = [];
  for (const c of job.calls) results.push(await call(client, job.base, c));
  process.stdout.write(JSON.stringify(results), () => process.exit(0));
})();
