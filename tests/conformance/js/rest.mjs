// supabase-js against the REST API.
import { anonKey, assert, check, client, main, ok, refused, rpc, service, table, users, wire, prefix } from './harness.mjs'

const people = () => table('people')
const anon = client(anonKey)
const ids = (rows) => rows.map((row) => row.id)
const filter = (name, build, ...expected) =>
  check(`filter: ${name}`, async () => assert.deepEqual(ids(ok(await build(people().select('id')).order('id'))), expected))

filter('eq', (q) => q.eq('name', 'Ada'), 1)
filter('eq of a text with everything in it', (q) => q.eq('name', 'Cy, "C"'), 3)
filter('neq', (q) => q.neq('age', 17), 1, 4)
filter('gt', (q) => q.gt('age', 36), 4)
filter('gte', (q) => q.gte('age', 36), 1, 4)
filter('lt', (q) => q.lt('age', 36), 2)
filter('lte', (q) => q.lte('age', 36), 1, 2)
filter('is null', (q) => q.is('age', null), 3)
filter('is not null', (q) => q.not('age', 'is', null), 1, 2, 4)
filter('in', (q) => q.in('id', [1, 3]), 1, 3)
// A quote inside is not escaped by this client, and so is no case.
filter('in of texts with commas', (q) => q.in('name', ['Bob', 'x, (y)']), 2)
filter('in of nothing', (q) => q.in('id', []))
filter('not in', (q) => q.not('id', 'in', '(1,2)'), 3, 4)
filter('like', (q) => q.like('name', '%o%'), 2, 4)
filter('ilike', (q) => q.ilike('name', 'd%'), 4)
filter('like any of', (q) => q.likeAnyOf('name', ['A%', 'B%']), 1, 2)
filter('like all of', (q) => q.likeAllOf('name', ['%o%', '%b%']), 2)
filter('ilike any of', (q) => q.ilikeAnyOf('name', ['a%', 'D%']), 1, 4)
filter('ilike all of', (q) => q.ilikeAllOf('name', ['%O%', '%B%']), 2)
filter('match', (q) => q.match({ age: 36, mood: 'happy' }), 1)
filter('contains a list', (q) => q.contains('tags', ['code']), 1, 2)
filter('contains json', (q) => q.contains('data', { lang: { first: 'de' } }), 2)
filter('contained by', (q) => q.containedBy('tags', ['code', 'x']), 2, 4)
filter('overlaps', (q) => q.overlaps('tags', ['math', 'y']), 1)
filter('range gt', (q) => q.rangeGt('span', '[6,9)'), 2)
filter('range gte', (q) => q.rangeGte('span', '[5,9)'), 2)
filter('range lt', (q) => q.rangeLt('span', '[6,9)'), 1)
filter('range lte', (q) => q.rangeLte('span', '[6,9)'), 1)
filter('range adjacent', (q) => q.rangeAdjacent('span', '[5,10)'), 1, 2)
filter('or', (q) => q.or('age.eq.17,and(age.gt.40,name.ilike.D*)'), 2, 4)
filter('or with quotes', (q) => q.or('name.eq."Cy, \\"C\\"",id.eq.1'), 1, 3)
filter('filter', (q) => q.filter('data->lang->>first', 'eq', 'en'), 1)
filter('not eq', (q) => q.not('id', 'eq', 1), 2, 3, 4)
filter('two on one column', (q) => q.gt('age', 17).lt('age', 52), 1)
filter('a date as JavaScript has it', (q) => q.gte('created_at', new Date('2026-01-02T03:04:05.678Z').toISOString()), 1, 2, 3, 4)

check('select all columns', async () => {
  const [ada] = ok(await people().select().eq('id', 1))
  assert.deepEqual(Object.keys(ada), ['id', 'name', 'age', 'tags', 'data', 'email', 'mood', 'born', 'score', 'span', 'created_at'])
  assert.deepEqual(ada.data, { lang: { first: 'en' }, n: [1, 2] })
  assert.equal(ada.created_at, '2026-01-02T03:04:05.678+00:00')
})
check('select with alias, cast and path', async () => {
  const [row] = ok(await people().select('who:name, age::text, data->lang->>first, l:data->n->0').eq('id', 1))
  assert.deepEqual(row, { who: 'Ada', age: '36', first: 'en', l: 1 })
})
check('no schema header unless a schema is chosen', async () => {
  ok(await people().select('id'))
  assert.equal(wire.request.get('accept-profile'), 'public')
  assert.equal(wire.headers.get('content-profile'), 'public')
})
check('order, limit and range', async () => {
  assert.deepEqual(ids(ok(await people().select('id').order('age', { ascending: false, nullsFirst: false }).limit(2))), [4, 1])
  assert.deepEqual(ids(ok(await people().select('id').order('id').range(1, 2))), [2, 3])
  assert.equal(wire.headers.get('content-range'), '1-2/*')
})
check('count of all', async () => {
  const answer = await people().select('id', { count: 'exact' })
  assert.deepEqual([answer.count, answer.status, answer.statusText], [4, 200, 'OK'])
})
check('count of a page is partial content', async () => {
  const answer = await people().select('id', { count: 'exact' }).order('id').range(0, 1)
  assert.deepEqual([answer.count, answer.status, ids(answer.data)], [4, 206, [1, 2]])
})
check('count without rows', async () => {
  const answer = await people().select('*', { count: 'exact', head: true })
  assert.deepEqual([answer.count, answer.data, answer.status, wire.method], [4, null, 200, 'HEAD'])
})
check('head of a refused request', async () => {
  const answer = await table('quiet').select('*', { head: true })
  assert.equal(answer.status, 403)
  assert.notEqual(answer.error, null)
})
check('single', async () => assert.deepEqual(ok(await people().select('name').eq('id', 2).single()), { name: 'Bob' }))
check('single of none', async () =>
  refused(await people().select().eq('id', 99).single(), 406, 'PGRST116', {
    message: 'Cannot coerce the result to a single JSON object',
    details: 'The result contains 0 rows',
    hint: null,
  }))
check('maybe single of none', async () => assert.equal(ok(await people().select().eq('id', 99).maybeSingle()), null))
check('maybe single of one', async () => assert.deepEqual(ok(await people().select('id').eq('id', 1).maybeSingle()), { id: 1 }))
check('maybe single of two', async () => {
  const answer = await people().select().lt('id', 3).maybeSingle()
  assert.equal(answer.error.code, 'PGRST116')
})
check('nulls stripped', async () =>
  assert.deepEqual(ok(await people().select('id, age').eq('id', 3).stripNulls()), [{ id: 3 }]))
check('max rows', async () => assert.equal(ok(await table('many').select('n')).length, 1000))
check('an aborted request', async () => {
  const controller = new AbortController()
  controller.abort()
  const answer = await people().select().abortSignal(controller.signal)
  assert.notEqual(answer.error, null)
  ok(await people().select('id'))
})
check('throw on error', async () => {
  await assert.rejects(async () => await table('nowhere').select().throwOnError(), (error) => error.code === 'PGRST205')
})

check('an unknown table', async () => refused(await table('nowhere').select(), 404, 'PGRST205'))
check('an unknown column', async () => refused(await people().select('nothing'), 400, '42703'))
check('a wrong operator', async () => refused(await people().select().filter('age', 'around', 1), 400, 'PGRST100'))
check('a wrong value', async () =>
  refused(await people().select().eq('age', 'old'), 400, '22P02', {
    message: 'invalid input syntax for type integer: "old"',
    details: null,
    hint: null,
  }))
check('an offset behind the end', async () => {
  refused(await people().select('*', { count: 'exact' }).range(50, 59), 416, 'PGRST103', {
    details: 'An offset of 50 was requested, but there are only 4 rows.',
  })
})
check('a schema that is not exposed', async () => refused(await service.schema('auth').from('users').select(), 406, 'PGRST106'))
check('no rights', async () => refused(await table('quiet').select(), 403, '42501'))
check('no rights, anonymous', async () => refused(await table('notes', anon).select(), 401, '42501'))

check('insert says nothing unless asked', async () => {
  const answer = await table('log').insert({ id: 1, line: 'a' })
  assert.deepEqual([ok(answer, 201), answer.statusText], [null, 'Created'])
  assert.equal(wire.headers.get('content-range'), '*/*')
})
check('insert and select', async () => {
  assert.deepEqual(ok(await table('log').insert({ id: 2, line: 'b' }).select(), 201), [{ id: 2, person_id: null, line: 'b' }])
})
check('insert of a list, one column back', async () => {
  const rows = [{ id: 3, line: 'c' }, { id: 4 }]
  assert.deepEqual(ok(await table('log').insert(rows).select('id'), 201), [{ id: 3 }, { id: 4 }])
})
check('insert with a count', async () => {
  const answer = await table('log').insert([{ id: 5 }, { id: 6 }], { count: 'exact' })
  assert.deepEqual([answer.count, answer.status], [2, 201])
})
check('insert, single', async () => {
  assert.deepEqual(ok(await table('log').insert({ id: 7 }).select('id').single(), 201), { id: 7 })
})
check('missing keys become null', async () => {
  const rows = [{ name: 'n1', mood: 'sad' }, { name: 'n2' }]
  assert.deepEqual(ok(await people().insert(rows).select('mood'), 201).map((row) => row.mood), ['sad', null])
})
check('missing keys become defaults', async () => {
  const rows = [{ name: 'n3', mood: 'sad' }, { name: 'n4' }]
  const made = ok(await people().insert(rows, { defaultToNull: false }).select('mood'), 201)
  assert.deepEqual(made.map((row) => row.mood), ['sad', 'ok'])
})
check('a key that is there', async () =>
  refused(await people().insert({ email: 'ada@x' }), 409, '23505', { details: 'Key (email)=(ada@x) already exists.' }))
check('a null where none may be', async () => refused(await people().insert({ name: null }), 400, '23502'))
check('a column that is not there', async () => refused(await people().insert({ nothing: 1 }), 400, 'PGRST204'))
check('upsert of a row that is there', async () => {
  const rows = ok(await people().upsert({ id: 2, name: 'Bob B.' }).select('id, name, email'), 200)
  assert.deepEqual(rows, [{ id: 2, name: 'Bob B.', email: 'bob@x' }])
})
check('upsert of a new row', async () => {
  assert.deepEqual(ok(await people().upsert({ id: 60, name: 'New' }).select('id'), 201), [{ id: 60 }])
})
check('upsert by another key', async () => {
  assert.deepEqual(ok(await people().upsert({ email: 'bob@x', name: 'B' }, { onConflict: 'email' }).select('id'), 200), [{ id: 2 }])
})
check('upsert that ignores', async () => {
  assert.deepEqual(ok(await people().upsert({ id: 2, name: 'no' }, { ignoreDuplicates: true }).select('id'), 201), [])
})
check('update', async () => {
  assert.equal(ok(await people().update({ age: 18 }).eq('id', 2), 204), null)
  assert.deepEqual(ok(await people().update({ age: 17 }).eq('id', 2).select('age')), [{ age: 17 }])
  assert.equal(wire.headers.get('content-range'), '0-0/*')
})
check('update with a count', async () => {
  assert.equal((await people().update({ mood: 'ok' }, { count: 'exact' }).in('id', [1, 2])).count, 2)
})
check('update of none', async () => assert.deepEqual(ok(await people().update({ age: 1 }).eq('id', 999).select()), []))
check('update without a filter', async () => refused(await table('log').update({ line: 'x' }), 400, '21000'))
check('delete', async () => {
  assert.deepEqual(ok(await table('log').delete().eq('id', 1).select('id')), [{ id: 1 }])
  assert.equal(ok(await table('log').delete().eq('id', 2), 204), null)
})
check('delete with a count', async () => assert.equal((await table('log').delete({ count: 'exact' }).in('id', [3, 4])).count, 2))
check('delete without a filter', async () => refused(await table('log').delete(), 400, '21000'))
check('max affected', async () =>
  refused(await table('log').delete().gt('id', 0).maxAffected(1), 400, 'PGRST124', { details: 'The query affects 3 rows' }))
check('what was applied is told', async () => {
  ok(await table('log').upsert({ id: 7 }).select(), 200)
  assert.equal(wire.headers.get('preference-applied').split(', ').sort().join(), 'resolution=merge-duplicates,return=representation')
})
check('text of all kinds', async () => {
  const line = 'snow ☃ 😀 \u0001 \\ "q" \'s\'\n'
  assert.equal(ok(await table('log').insert({ id: 90, line }).select().single(), 201).line, line)
  assert.deepEqual(ids(ok(await table('log').select('id').eq('line', line))), [90])
})

check('rpc of a scalar', async () => assert.equal(ok(await rpc('add', { a: 1, b: 2 })), 3))
check('rpc without arguments', async () => assert.deepEqual(ok(await rpc('pairs')), [{ k: 'a', v: 1 }, { k: 'b', v: 2 }]))
check('rpc by GET', async () => {
  assert.equal(ok(await rpc('add', { a: 1 }, { get: true })), 11)
  assert.equal(wire.method, 'GET')
})
// The client makes one text of the list, and each text is one element of a variadic parameter.
check('rpc by GET with a list', async () => refused(await rpc('total', { numbers: [1, 2, 3] }, { get: true }), 400, '22P02'))
check('rpc by HEAD', async () => {
  const answer = await rpc('everyone', {}, { head: true, count: 'exact' })
  assert.equal(answer.data, null)
  assert.equal(wire.method, 'HEAD')
  assert.ok(answer.count >= 4)
})
check('rpc of void', async () => {
  const answer = await rpc('nothing')
  assert.deepEqual([answer.status, answer.error, answer.data ?? null], [204, null, null])
})
check('rpc of a null', async () => assert.equal(ok(await rpc('null_text')), null))
check('rpc of json', async () => assert.deepEqual(ok(await rpc('echo', { value: [1, { a: null }] })), [1, { a: null }]))
check('rpc of rows, filtered and cut', async () => {
  assert.deepEqual(ok(await rpc('everyone').select('id').eq('name', 'Ada').limit(1)), [{ id: 1 }])
})
check('rpc of one row', async () => assert.equal(ok(await rpc('oldest')).name, 'dora'))
check('rpc of OUT parameters', async () => assert.deepEqual(ok(await rpc('two_out')), { a: 1, b: 'x' }))
check('rpc with a whole body', async () => assert.deepEqual(ok(await rpc('whole_body', { any: 1 })), { any: 1 }))
check('rpc that is not there', async () => refused(await rpc('nowhere', { a: 1 }), 404, 'PGRST202'))
check('rpc with a wrong argument', async () => refused(await rpc('add', { b: 1 }), 404, 'PGRST202'))
check('rpc that is ambiguous', async () => {
  const answer = await rpc('overloaded', { a: 1 })
  assert.deepEqual([answer.status, answer.error.code], [300, 'PGRST203'])
})
check('rpc that raises', async () =>
  refused(await rpc('fail', { code: 'PT409' }), 409, 'PT409', { message: 'no', details: 'why', hint: 'try' }))
check('rpc that must not write', async () => refused(await rpc('claims_to_read', { p_id: 500 }), 405, '25006'))

check('who one is: service', async () => assert.equal(ok(await rpc('who')).role, 'service_role'))
check('who one is: anonymous', async () => assert.equal(ok(await rpc('who', {}, {}, anon)).role, 'anon'))
if (users) {
  check('who one is: a user', async () => {
    const known = ok(await rpc('who', {}, {}, client(anonKey, users.ada.token)))
    assert.deepEqual([known.role, known.uid], ['authenticated', users.ada.id])
  })
  check('a user sees own rows only', async () => {
    const [ada, bob] = [client(anonKey, users.ada.token), client(anonKey, users.bob.token)]
    ok(await table('notes', ada).insert({ id: 100, body: 'a' }), 201)
    ok(await table('notes', bob).insert({ id: 101, body: 'b' }), 201)
    assert.deepEqual(ids(ok(await table('notes', ada).select('id'))), [100])
    assert.deepEqual(ok(await table('notes', ada).delete().eq('id', 101).select()), [])
    refused(await table('notes', ada).insert({ id: 102, owner_id: users.bob.id }), 403, '42501')
  })
  check('an expired token', async () =>
    refused(await rpc('who', {}, {}, client(anonKey, users.expired.token)), 401, 'PGRST303', { message: 'JWT expired' }))
}
check('a wrong key', async () => {
  const answer = await client('nonsense').from(`${prefix}people`).select()
  assert.equal(answer.status, 401)
})

await main()
