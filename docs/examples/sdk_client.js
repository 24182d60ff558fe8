// Reads a channel, and says one thing in it: node sdk_client.js localhost:9999
const { Centrifuge } = require('centrifuge');
const WebSocket = require('ws'); // a browser has one of its own

const client = new Centrifuge(`ws://${process.argv[2]}/connection/websocket`, {
  websocket: WebSocket,
  data: { chat: { name: 'thermometer' } }, // to be somebody of the chat; without it, a program that nobody sees come
});
const lobby = client.newSubscription('lobby');

lobby.on('subscribed', ({ wasRecovering, recovered }) => {
  console.log(wasRecovering && !recovered ? 'back; what was said meanwhile is lost' : 'subscribed');
});
lobby.on('publication', ({ data, info }) => {
  console.log(`${info?.connInfo?.name ?? 'somebody'}: ${JSON.stringify(data)}`);
});

lobby.subscribe();
client.connect();
lobby.ready().then(() => lobby.publish({ temperature: 21.5 }));
