-- What every function of the library checks first: the life, and the caller's grant.
--
-- Lua does not roll back, so each function reads and checks everything before its first write; what
-- can still fail behind that (a key of another type) is caught and told, one verdict a partition.
-- A redis.call costs about 1 us and the primary is the system's bottleneck: each function reads a
-- record once and compares substrings.

local NOT_HELD = '\0\0\0\0' -- epoch of a partition that a grant does not hold
local NEVER = '\0\0\0\0\0\0\0\0' -- renewal number of a grant not yet renewed
local CHUNK = 7000 -- even, and below Lua's limit of 8,000 values for one unpack()

local own_run_id -- survives between calls, not a restart: exactly as long as the run id itself

local function run_id()
  if not own_run_id then
    own_run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  end
  return own_run_id
end

-- Id of the stream that replicas copy: data which belongs to it has all that was written before it ended.
local own_history -- found out anew by a server whose data were replaced: the library comes with them

local function history()
  own_history = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  return own_history
end

-- The in-sync set's bytes if `number` is the life recorded for this very server process, else nil. A process that
-- was demoted, got another's data and is promoted again has the run id that it had; what it has written before
-- may be gone, and its history is another.
local function open_set(life_key, number)
  local life = redis.call('HMGET', life_key, 'run_id', 'number', 'set', 'history')
  if life[1] == run_id() and tonumber(life[2]) == number and life[4] == (own_history or history()) then
    return life[3]
  end
end

-- nil when the grant is active and at least as new as the one that its holder knows of.
local function refusal(state, grant_life, grant_version, life, version)
  if state ~= 'active' then
    return 'revoked'
  end
  grant_life, grant_version = tonumber(grant_life), tonumber(grant_version)
  if grant_life < life or (grant_life == life and grant_version < version) then
    return 'older'
  end
end

-- The four bytes that a packed array of epochs has for `partition`; '' past its end.
local function slot(epochs, partition)
  return string.sub(epochs, partition * 4 + 1, partition * 4 + 4)
end

-- All digits of a life's number, which has more of them than Lua would write.
local function whole(number)
  return string.format('%.0f', number)
end

local function arguments(args)
  return unpack(cmsgpack.unpack(table.concat(args)))
end

local function hex(bytes)
  return (string.gsub(bytes, '.', function(byte)
    return string.format('%02x', string.byte(byte))
  end))
end

local function epoch_text(epoch)
  if epoch == NOT_HELD then
    return 'none'
  end
  return string.format('%d.%d', struct.unpack('>I2I2', epoch))
end

-- The nonces of active grants as a set, or nil and a detail when the caller has not declared them
-- all.
local function active_grants(grants_key, nonces)
  local declared, active = {}, {}
  for _, nonce in ipairs(nonces) do
    declared[nonce] = true
  end
  for _, nonce in ipairs(redis.call('HKEYS', grants_key)) do
    if not declared[nonce] then
      return nil, 'grant ' .. hex(nonce) .. ' was recorded meanwhile: call again'
    end
    active[nonce] = true
  end
  return active
end
