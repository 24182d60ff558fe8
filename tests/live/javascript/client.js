// Drives the npm package `centrifuge`, unmodified, by lines of JSON (tests/live/programs.py):
// node client.js TRANSPORT ENDPOINT EMULATION_ENDPOINT ASKS FLAVOUR
const EventSource = require('eventsource');
const { fetch } = require('undici');
const readline = require('readline');
const WebSocket = require('ws');

const [transport, endpoint, emulationEndpoint, asks, flavour] = process.argv.slice(2);
const { Centrifuge } = require(flavour === 'protobuf' ? 'centrifuge/build/protobuf' : 'centrifuge');

// Over Protobuf the SDK's data are bytes.
const toData = (value) => (flavour === 'protobuf' ? new TextEncoder().encode(JSON.stringify(value)) : value);
const plain = (name, value) => (value instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(value)) : value);
const say = (value) => process.stdout.write(JSON.stringify(value, plain) + '\n');

const asked = [];
const token = (channel) => new Promise((resolve) => {
  asked.push(resolve);
  say({ event: 'token', id: asked.length, for: channel });
});

const client = new Centrifuge([{ transport, endpoint }], {
  websocket: WebSocket, fetch, eventsource: EventSource, readableStream: ReadableStream, emulationEndpoint,
  minReconnectDelay: 50, maxReconnectDelay: 200,
  ...(asks === 'tokens' ? { getToken: () => token('') } : {}),
});

const infoOf = (info) => info && { client: info.client, user: info.user, conn_info: info.connInfo || null };

// Says everything that the SDK tells, of the connection or of a channel.
function note(emitter, channel, kinds) {
  for (const kind of kinds) {
    emitter.on(kind, (context) => {
      const value = { event: kind, channel: context.channel || channel };
      if (context.streamPosition) Object.assign(value, context.streamPosition);
      for (const each of ['client', 'code', 'reason', 'data', 'recovered', 'offset']) {
        if (context[each] !== undefined) value[each] = context[each];
      }
      if (context.wasRecovering !== undefined) value.was_recovering = context.wasRecovering;
      if (context.info) value.info = infoOf(context.info);
      if (kind === 'join' || kind === 'leave') Object.assign(value, { client: context.info.client, user: context.info.user });
      if (context.error) value.code = context.error.code;
      say(value);
    });
  }
}
note(client, '', ['connecting', 'connected', 'disconnected', 'error', 'subscribed', 'subscribing', 'unsubscribed',
  'publication', 'join', 'leave']);

const publications = (found) => found.map((each) => ({ data: each.data, offset: each.offset, info: infoOf(each.info) }));

const commands = {
  connect: () => client.connect(),
  disconnect: () => client.disconnect(),
  subscribe: ({ channel, join_leave, token: tokened }) => {
    let subscription = client.getSubscription(channel);
    if (!subscription) {
      subscription = client.newSubscription(channel, {
        joinLeave: !!join_leave, minResubscribeDelay: 50, maxResubscribeDelay: 200,
        ...(tokened ? { getToken: () => token(channel) } : {}),
      });
      note(subscription, channel, ['subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'error']);
    }
    subscription.subscribe();
  },
  unsubscribe: ({ channel }) => client.getSubscription(channel).unsubscribe(),
  publish: async ({ channel, data }) => { await client.publish(channel, toData(data)); },
  presence: async ({ channel }) => {
    const { clients } = await client.presence(channel);
    return Object.fromEntries(Object.entries(clients).map(([id, info]) => [id, infoOf(info)]));
  },
  presence_stats: async ({ channel }) => {
    const { numClients, numUsers } = await client.presenceStats(channel);
    return { num_clients: numClients, num_users: numUsers };
  },
  history: async ({ channel, limit, since, reverse }) => {
    const result = await client.history(channel, { limit, since, reverse });
    return { publications: publications(result.publications), offset: result.offset, epoch: result.epoch };
  },
  rpc: async ({ method, data }) => (await client.rpc(method, toData(data))).data,
};

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { do: name, id, ...parameters } = JSON.parse(line);
  if (name === 'token') {
    asked[id - 1](parameters.token);
    return;
  }
  try {
    say({ id, result: await commands[name](parameters) });
  } catch (error) {
    say({ id, error: error.code || 0 });
  }
});
