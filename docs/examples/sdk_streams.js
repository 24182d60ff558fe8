// Reads a channel over HTTP, and publishes one message in it: node sdk_streams.js localhost:9999 http_stream (or sse)
const { Centrifuge } = require('centrifuge');
const EventSource = require('eventsource'); // a browser has its own

const [address, transport] = process.argv.slice(2);
const endpoint = `http://${address}/connection/${transport}`;
const client = new Centrifuge([{ transport, endpoint }], {
  fetch, readableStream: ReadableStream, eventsource: EventSource,
  emulationEndpoint: `http://${address}/emulation`,
});
const lobby = client.newSubscription('lobby');

lobby.on('subscribed', () => console.log('subscribed'));
lobby.on('publication', ({ data }) => console.log(JSON.stringify(data)));

lobby.subscribe();
client.connect();
lobby.ready().then(() => lobby.publish({ temperature: 21.5 }));
