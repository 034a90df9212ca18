// The official client for Node.js, used as with the cloud product: npm install aliyun-api-gateway
const {Client} = require('aliyun-api-gateway');

const client = new Client('203700005', 'chapter-five-secret-not-for-production');
// `host` only because nothing in DNS says that signed.localtest is here.
const headers = {accept: 'application/json', host: 'signed.localtest'};
client.get(`${process.argv[2]}/web/cloudapi`, {query: {a: 'b'}, headers})
  .then((answer) => console.log(JSON.stringify(answer)), (error) => console.log(error.code, error.message));
