// supabase-js against the auth server.
import { anonKey, assert, check, client, main, prefix, table } from './harness.mjs'

const address = () => `${crypto.randomUUID()}@example.org`
const password = 'correct horse'
const fine = ({ data, error }) => {
  assert.equal(error, null)
  return data
}

check('sign up, and be signed in', async () => {
  const who = client(anonKey)
  const { user, session } = fine(await who.auth.signUp({ email: address(), password, options: { data: { name: 'Ada' } } }))
  assert.equal(user.role, 'authenticated')
  assert.equal(user.user_metadata.name, 'Ada')
  assert.equal(session.token_type, 'bearer')
  assert.equal(fine(await who.auth.getSession()).session.access_token, session.access_token)
})
check('policies know the user', async () => {
  const who = client(anonKey)
  const { user } = fine(await who.auth.signUp({ email: address(), password }))
  const { data, error } = await who.rpc(`${prefix}who`)
  assert.equal(error, null)
  assert.deepEqual([data.role, data.uid, data.email], ['authenticated', user.id, user.email])
  assert.deepEqual((await table('notes', who).select('id')).data, [])
})
check('sign in by password', async () => {
  const email = address()
  fine(await client(anonKey).auth.signUp({ email, password }))
  const who = client(anonKey)
  assert.equal(fine(await who.auth.signInWithPassword({ email, password })).user.email, email)
  const { error } = await client(anonKey).auth.signInWithPassword({ email, password: 'wrong one' })
  assert.deepEqual([error.status, error.code, error.message], [400, 'invalid_credentials', 'Invalid login credentials'])
})
check('a weak password', async () => {
  const { error } = await client(anonKey).auth.signUp({ email: address(), password: 'short' })
  assert.deepEqual([error.name, error.status, error.code, error.reasons], ['AuthWeakPasswordError', 422, 'weak_password', ['length']])
})
check('refresh', async () => {
  const who = client(anonKey)
  const { session } = fine(await who.auth.signUp({ email: address(), password }))
  const fresh = fine(await who.auth.refreshSession())
  assert.notEqual(fresh.session.refresh_token, session.refresh_token)
  assert.equal(fresh.user.id, session.user.id)
})
check('read and change the user', async () => {
  const who = client(anonKey)
  fine(await who.auth.signUp({ email: address(), password }))
  const changed = fine(await who.auth.updateUser({ data: { color: 'blue' } }))
  assert.equal(changed.user.user_metadata.color, 'blue')
  assert.equal(fine(await who.auth.getUser()).user.user_metadata.color, 'blue')
  assert.equal(fine(await who.auth.getClaims()).claims.role, 'authenticated')
})
check('sign out', async () => {
  const who = client(anonKey)
  const { session } = fine(await who.auth.signUp({ email: address(), password }))
  assert.equal((await who.auth.signOut()).error, null)
  assert.equal(fine(await who.auth.getSession()).session, null)
  const { error } = await client(anonKey).auth.getUser(session.access_token)
  assert.equal(error.name, 'AuthSessionMissingError')
})
check('users of the service role', async () => {
  const { auth } = client()
  const { user } = fine(await auth.admin.createUser({ email: address(), password, email_confirm: true }))
  assert.equal(fine(await auth.admin.getUserById(user.id)).user.email, user.email)
  fine(await auth.admin.deleteUser(user.id))
})

await main()
