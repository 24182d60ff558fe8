// Reads a channel, and publishes one message in it: node sdk_client.js localhost:9999
const { Centrifuge } = require('centrifuge');
const WebSocket = require('ws'); // a browser has its own

const client = new Centrifuge(`ws://${process.argv[2]}/connection/websocket`, {
  websocket: WebSocket,
  data: { chat: { name: 'thermometer' } }, // takes part in the chat; without it, people do not see it join
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
