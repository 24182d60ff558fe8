// Reads a channel over TCP lines, and publishes one message in it: node lines_client.js HOST PORT
const net = require('net');
const readline = require('readline');

const [host, port] = process.argv.slice(2);
let position = {}; // its position in the channel
let failures = 0;

function connect() {
  const socket = net.connect(Number(port), host);
  const send = (command) => socket.write(JSON.stringify(command) + '\n');
  let comeBack = true;

  socket.setTimeout(60_000, () => socket.destroy()); // pings come every 25 seconds
  socket.on('error', (error) => console.log(`lost the connection: ${error.message}`));
  // Longer each time, and random, so that clients that lost the server together do not return together.
  socket.on('close', () => comeBack && setTimeout(connect, Math.random() * Math.min(60_000, 1000 * 2 ** failures++)));
  send({ id: 1, connect: {} });

  readline.createInterface({ input: socket }).on('error', () => {}).on('line', (line) => {
    const { id, error, connect: connected, subscribe, push } = JSON.parse(line);
    if (error) {
      console.log(`refused: ${error.message}`);
    } else if (connected) {
      const recovery = position.epoch ? { recover: true, ...position } : {};
      send({ id: 2, subscribe: { channel: 'lobby', ...recovery } });
    } else if (subscribe) {
      const first = !position.epoch;
      console.log(first ? 'subscribed' : subscribe.recovered ? 'back; nothing is lost' : 'back; something is lost');
      failures = 0;
      position = { epoch: subscribe.epoch, offset: subscribe.offset ?? 0 }; // a member that is zero is left out
      (subscribe.publications ?? []).forEach(published);
      if (first) send({ id: 3, publish: { channel: 'lobby', data: { temperature: 21.5 } } });
    } else if (push?.pub) {
      published(push.pub);
    } else if (push?.disconnect) {
      console.log(`disconnected: ${push.disconnect.reason}`);
      comeBack = push.disconnect.reconnect === true;
    } else if (line === '{}') {
      send({}); // a ping, and also its answer
    }
  });
}

function published({ data, offset = position.offset }) {
  position.offset = offset;
  console.log(JSON.stringify(data));
}

connect();
