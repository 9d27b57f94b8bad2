// supabase-js against Realtime, protocol 2.0.0.
import { anonKey, assert, check, client, main, ok, prefix, rpc, service, table, users, within } from './harness.mjs'

/** What a channel has said, to be taken one by one. */
const hearing = () => {
  const [said, waiting] = [[], []]
  return {
    said,
    put: (message) => (waiting.length ? waiting.shift()(message) : said.push(message)),
    next: (what = 'a message') =>
      within(said.length ? Promise.resolve(said.shift()) : new Promise((resolve) => waiting.push(resolve)), what),
  }
}

/** Subscribe; fulfilled when joined, and with `changes` when changes flow. */
const joined = async (channel, { changes = false } = {}) => {
  const [states, system] = [hearing(), hearing()]
  if (changes) channel.on('system', {}, system.put)
  channel.subscribe((state, error) => states.put({ state, error }))
  const { state, error } = await states.next('SUBSCRIBED')
  assert.equal(state, 'SUBSCRIBED', String(error?.message))
  if (changes) assert.equal((await system.next('the system message')).message, 'Subscribed to PostgreSQL')
  return { channel, states, system }
}

let count = 0
const topic = (name) => `${prefix}js_${name}_${++count}`

const changesOf = async (name, binding = {}, who = service) => {
  const heard = hearing()
  const channel = who.channel(topic('changes'))
  channel.on('postgres_changes', { event: '*', schema: 'public', table: prefix + name, ...binding }, heard.put)
  await joined(channel, { changes: true })
  return { ...heard, leave: () => who.removeChannel(channel) }
}

const member = async (name, config = {}, who = service, events = ['wake']) => {
  const heard = hearing()
  const channel = who.channel(name, { config })
  for (const event of events) channel.on('broadcast', { event }, heard.put)
  const { states } = await joined(channel)
  return { ...heard, channel, states, leave: () => who.removeChannel(channel) }
}

const tell = async (topic, payload, hidden, event = 'wake') => {
  const answer = await rpc('send', { topic, event, payload, private: hidden })
  assert.equal(answer.error, null)
}

/** Messages of the database flow: what is sent in the first moments of a Realtime may reach nobody. */
const streaming = async () => {
  const name = topic('streaming')
  const { next, leave } = await member(name)
  let heard = false
  const first = next('the first message of the database').then(() => (heard = true))
  while (!heard) {
    await tell(name, {}, false)
    await Promise.race([first, new Promise((resolve) => setTimeout(resolve, 200))])
  }
  await leave()
}

check('protocol 2.0.0 is spoken', () => {
  assert.equal(new URL(service.realtime.endpointURL()).searchParams.get('vsn'), '2.0.0')
})

check('an insert', async () => {
  const { next, leave } = await changesOf('jobs', { event: 'INSERT' })
  ok(await table('jobs').insert({ kind: 'a', n: 1, num: '1.10', data: { x: [null] }, tags: ['p', 'q r'] }), 201)
  const change = await next()
  assert.equal(change.eventType, 'INSERT')
  assert.deepEqual([change.schema, change.table, change.errors], ['public', `${prefix}jobs`, null])
  assert.match(change.commit_timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/)
  assert.deepEqual(change.old, {})
  const { id, ...row } = change.new
  assert.equal(typeof id, 'number')
  assert.deepEqual(row, {
    kind: 'a', n: 1, num: 1.1, data: { x: [null] }, tags: ['p', 'q r'], at: '2026-01-02T03:04:05.678+00:00', done: false,
  })
  assert.equal(await leave(), 'ok')
})

check('an update and a delete', async () => {
  const { next, leave } = await changesOf('jobs')
  const { id } = ok(await table('jobs').insert({ kind: 'a' }).select('id').single(), 201)
  ok(await table('jobs').update({ kind: 'b' }).eq('id', id), 204)
  ok(await table('jobs').delete().eq('id', id), 204)
  const [inserted, updated, deleted] = [await next(), await next(), await next()]
  assert.deepEqual([inserted, updated, deleted].map((each) => each.eventType), ['INSERT', 'UPDATE', 'DELETE'])
  assert.equal(updated.new.kind, 'b')
  assert.deepEqual(updated.old, { id })
  assert.deepEqual([deleted.new, deleted.old], [{}, { id }])
  await leave()
})

check('full replica identity', async () => {
  const { next, leave } = await changesOf('full', { event: 'UPDATE' })
  ok(await table('full').insert({ id: 7, a: 'a', n: 1 }), 201)
  ok(await table('full').update({ n: 2 }).eq('id', 7), 204)
  assert.deepEqual((await next()).old, { id: 7, a: 'a', n: 1 })
  await leave()
})

check('filters', async () => {
  const filters = { 'kind=eq.f1': ['f1'], 'kind=in.(f1,f3)': ['f1', 'f3'], 'n=gte.1002': ['f2', 'f3'], 'n=lt.-1': [] }
  const heard = []
  for (const [filter, kinds] of Object.entries(filters)) heard.push([await changesOf('jobs', { event: 'INSERT', filter }), kinds])
  ok(await table('jobs').insert([{ kind: 'f1', n: 1001 }, { kind: 'f2', n: 1002 }, { kind: 'f3', n: 1003 }]), 201)
  for (const [{ next }, kinds] of heard) for (const kind of kinds) assert.equal((await next()).new.kind, kind)
  for (const [{ said, leave }] of heard) {
    assert.deepEqual(said, [])
    await leave()
  }
})

check('two bindings on one channel', async () => {
  const [all, some] = [hearing(), hearing()]
  const on = { schema: 'public', table: `${prefix}jobs` }
  const channel = service
    .channel(topic('two'))
    .on('postgres_changes', { event: '*', ...on }, all.put)
    .on('postgres_changes', { event: 'INSERT', ...on, filter: 'kind=eq.two' }, some.put)
  await joined(channel, { changes: true })
  ok(await table('jobs').insert([{ kind: 'one' }, { kind: 'two' }]), 201)
  assert.deepEqual([(await all.next()).new.kind, (await all.next()).new.kind], ['one', 'two'])
  assert.equal((await some.next()).new.kind, 'two')
  await service.removeChannel(channel)
})

check('a bad filter is a channel error', async () => {
  const states = hearing()
  const own = client()
  own
    .channel(topic('bad'))
    .on('postgres_changes', { event: '*', schema: 'public', table: `${prefix}jobs`, filter: 'nothing=eq.1' }, () => {})
    .on('system', {}, states.put)
    .subscribe()
  const told = await states.next('the system message')
  assert.equal(told.status, 'error')
  assert.match(told.message, /invalid column for filter nothing/)
})

check('broadcast to others', async () => {
  const name = topic('others')
  const [other, self] = [await member(name, {}, client(anonKey)), await member(name)]
  assert.equal(await self.channel.send({ type: 'broadcast', event: 'wake', payload: { n: 1, deep: { a: [null, 'é'] } } }), 'ok')
  const message = await other.next()
  assert.deepEqual([message.event, message.payload], ['wake', { n: 1, deep: { a: [null, 'é'] } }])
  assert.deepEqual(self.said, [])
  await self.leave()
})

check('broadcast to oneself with acknowledgement', async () => {
  const self = await member(topic('self'), { broadcast: { self: true, ack: true } })
  assert.equal(await self.channel.send({ type: 'broadcast', event: 'wake', payload: { n: 1 } }), 'ok')
  assert.deepEqual((await self.next()).payload, { n: 1 })
  await self.leave()
})

check('bytes', async () => {
  const self = await member(topic('bytes'), { broadcast: { self: true, ack: true } })
  const payload = new Uint8Array([0, 1, 254, 255])
  assert.equal(await self.channel.send({ type: 'broadcast', event: 'wake', payload: payload.buffer }), 'ok')
  const found = (await self.next()).payload
  assert.deepEqual([...new Uint8Array(found.buffer ?? found)], [0, 1, 254, 255])
  await self.leave()
})

check('broadcast over http, many at once', async () => {
  const name = topic('http')
  const heard = await member(name)
  // A channel that has not joined sends over HTTP.
  const answer = await client().channel(name).send({ type: 'broadcast', event: 'wake', payload: { n: 1 } })
  assert.equal(answer, 'ok')
  assert.deepEqual((await heard.next()).payload, { n: 1 })
  await heard.leave()
})

check('broadcast over http, one', async () => {
  const name = topic('one')
  const heard = await member(name)
  const answer = await client().channel(name).httpSend('wake', { n: 1 })
  assert.equal(answer.success, true)
  assert.deepEqual((await heard.next()).payload, { n: 1 })
  await heard.leave()
})

check('broadcast from the database', async () => {
  await streaming()
  const name = topic('database')
  const heard = await member(name, {}, client(anonKey))
  await tell(name, { n: 1 }, false)
  const message = await heard.next()
  assert.equal(message.payload.n, 1)
  assert.equal(message.meta.id, message.payload.id)
})

check('changes broadcast by a trigger', async () => {
  await streaming()
  const heard = await member(`${prefix}told`, { private: true }, service, ['INSERT', 'DELETE'])
  ok(await table('told').insert({ id: 50, body: 'a' }), 201)
  ok(await table('told').delete().eq('id', 50), 204)
  const [inserted, deleted] = [(await heard.next()).payload, (await heard.next()).payload]
  assert.deepEqual([inserted.operation, inserted.record, inserted.old_record], ['INSERT', { id: 50, body: 'a' }, null])
  assert.deepEqual([deleted.operation, deleted.record, deleted.old_record], ['DELETE', null, { id: 50, body: 'a' }])
  await heard.leave()
})

check('presence', async () => {
  const name = topic('presence')
  const present = async (key) => {
    const heard = hearing()
    const channel = client().channel(name, { config: { presence: { key, enabled: true } } })
    for (const event of ['join', 'leave']) channel.on('presence', { event }, heard.put)
    await joined(channel)
    return { ...heard, channel }
  }
  const first = await present('w1')
  assert.equal(await first.channel.track({ worker: 1 }), 'ok')
  const arrived = await first.next()
  assert.deepEqual([arrived.event, arrived.key, arrived.newPresences[0].worker], ['join', 'w1', 1])
  const second = await present('w2')
  assert.equal((await second.next()).key, 'w1')
  assert.equal(await second.channel.track({ worker: 2 }), 'ok')
  assert.deepEqual([(await first.next()).key, (await second.next()).key], ['w2', 'w2'])
  assert.deepEqual(Object.keys(second.channel.presenceState()).sort(), ['w1', 'w2'])
  assert.equal(await first.channel.untrack(), 'ok')
  const left = await second.next()
  assert.deepEqual([left.event, left.key], ['leave', 'w1'])
})

check('leaving and coming back', async () => {
  const name = topic('again')
  const first = await member(name, { broadcast: { self: true, ack: true } })
  assert.equal(await first.leave(), 'ok')
  assert.equal((await first.states.next()).state, 'CLOSED')
  const second = await member(name, { broadcast: { self: true, ack: true } })
  await second.channel.send({ type: 'broadcast', event: 'wake', payload: { n: 2 } })
  assert.deepEqual((await second.next()).payload, { n: 2 })
  assert.deepEqual(first.said, [])
  await second.leave()
})

check('a wrong key', async () => {
  const own = client('nonsense')
  const states = hearing()
  own.channel(topic('refused')).subscribe((state, error) => states.put({ state, error }))
  assert.equal((await states.next()).state, 'CHANNEL_ERROR')
})

if (users) {
  const signedIn = async (user) => {
    const own = client(anonKey, user.token)
    await own.realtime.setAuth(user.token)
    return own
  }
  const own = (user) => `${prefix}of_${user.id}`

  check('a user hears own rows only', async () => {
    const [ada, bob] = [await signedIn(users.ada), await signedIn(users.bob)]
    const [hers, his] = [await changesOf('own', { event: 'INSERT' }, ada), await changesOf('own', { event: 'INSERT' }, bob)]
    ok(await table('own').insert([{ id: 60, owner_id: users.bob.id }, { id: 61, owner_id: users.ada.id }]), 201)
    assert.equal((await his.next()).new.id, 60)
    assert.equal((await hers.next()).new.id, 61)
    assert.deepEqual([his.said, hers.said], [[], []])
  })

  check('a private channel of a user', async () => {
    await streaming()
    const ada = await signedIn(users.ada)
    const heard = await member(own(users.ada), { private: true, broadcast: { self: true, ack: true } }, ada)
    assert.equal(await heard.channel.send({ type: 'broadcast', event: 'wake', payload: { n: 1 } }), 'ok')
    assert.deepEqual((await heard.next()).payload, { n: 1 })
    await tell(own(users.ada), { n: 2 }, true)
    assert.equal((await heard.next()).payload.n, 2)
  })

  check('a private channel of another user', async () => {
    const bob = await signedIn(users.bob)
    const states = hearing()
    const channel = bob.channel(own(users.ada), { config: { private: true } })
    channel.subscribe((state, error) => states.put({ state, error }))
    const { state, error } = await states.next()
    assert.equal(state, 'CHANNEL_ERROR')
    assert.match(String(error?.message ?? error), /Unauthorized/)
    await bob.removeChannel(channel)
  })

  check('replay on a private channel', async () => {
    const ada = await signedIn(users.ada)
    for (const n of [11, 12]) await tell(own(users.ada), { n }, true, 'again')
    const config = { private: true, broadcast: { replay: { since: Date.now() - 60_000, limit: 25 } } }
    const heard = await member(own(users.ada), config, ada, ['again'])
    const [first, second] = [await heard.next(), await heard.next()]
    assert.deepEqual([first.payload.n, second.payload.n], [11, 12])
    assert.deepEqual([first.meta.replayed, second.meta.replayed], [true, true])
  })
}

await main()
