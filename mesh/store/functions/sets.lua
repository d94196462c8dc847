-- The in-sync set and the leader's token: who must have a write before it counts, and whose word counts.

local NOT_ASKED = 0 -- in place of the time at which the evidence was asked

local function age_us(asked_at_us)
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2]) - asked_at_us
end

local function names(list)
  local found = {}
  for _, name in ipairs(list) do
    found[name] = true
  end
  return found
end

-- Whether fewer nodes have to confirm a write than before: a member is missing, or a node is newly marked as
-- no candidate.
local function asks_less(before, after)
  local members, marked = names(after[2]), names(before[3])
  for _, name in ipairs(before[2]) do
    if not members[name] then
      return true
    end
  end
  for _, name in ipairs(after[3]) do
    if not marked[name] then
      return true
    end
  end
end

-- Why the set cannot follow the one recorded, as a reply; nil if it can.
local function change_refused(life_key, blob, asked_at_us, max_age_us)
  local before = cmsgpack.unpack(redis.call('HGET', life_key, 'set'))
  local after = cmsgpack.unpack(blob)
  if after[1] ~= before[1] + 1 then
    return { 'conflict', 'set ' .. before[1] .. ' is recorded, ' .. after[1] .. ' is not the next' }
  end
  if after[4] ~= before[4] then
    return { 'conflict', 'the durability is ' .. before[4] .. ', not ' .. after[4] }
  end
  if after[4] == 'replicated' and #after[2] == 0 then
    return { 'conflict', 'no member would be left' }
  end
  if not asks_less(before, after) then
    return
  end
  if asked_at_us == NOT_ASKED then
    return { 'conflict', 'it asks for less, and does not say since when that is known to be safe' }
  end
  if age_us(asked_at_us) > max_age_us then
    return { 'old' }
  end
end

local function record_set(life_key, blob)
  redis.call('HSET', life_key, 'set', blob, 'set_version', cmsgpack.unpack(blob)[1])
end

-- change_set(life, leader)
local function change_set(keys, args)
  local operation, life, token, blob, asked_at_us, max_age_us = arguments(args)
  local set = open_set(keys[1], life)
  if not set then
    return { 'closed' }
  end
  local leader = redis.call('HMGET', keys[2], 'token', 'set_operation')
  if tonumber(leader[1]) ~= token then
    return { 'deposed' }
  end
  if leader[2] == operation then
    redis.call('HINCRBY', keys[2], 't', 1) -- makes the WAIT behind it wait, on a new connection too
    return { 'ok', set }
  end
  local refused = change_refused(keys[1], blob, asked_at_us, max_age_us)
  if refused then
    return refused
  end
  record_set(keys[1], blob)
  -- An operation of its own: a takeover under way may be repeated behind it.
  redis.call('HSET', keys[2], 'set_operation', operation)
  return { 'ok', blob }
end

-- bid(life, leader, grants, grant ...): a standby takes the lead in the life that is open.
local function bid(keys, args)
  local operation, life, token, new_token, nonces, blob, asked_at_us, max_age_us = arguments(args)
  local set = open_set(keys[1], life)
  if not set then
    return { 'closed' }
  end
  local leader = redis.call('HMGET', keys[2], 'token', 'operation', 'reply')
  local recorded = tonumber(leader[1])
  if leader[2] == operation and recorded == new_token then
    redis.call('HINCRBY', keys[2], 't', 1) -- makes the WAIT behind it wait, on a new connection too
    return { 'ok', set, leader[3] }
  end
  if recorded ~= token then
    return { 'deposed' }
  end
  if new_token <= token then
    return { 'conflict', 'token ' .. new_token .. ' is not above ' .. token }
  end
  local active, undeclared = active_grants(keys[3], nonces)
  if not active then
    return { 'conflict', undeclared }
  end
  if blob ~= '' then
    local refused = change_refused(keys[1], blob, asked_at_us, max_age_us)
    if refused then
      return refused
    end
    record_set(keys[1], blob)
    set = blob
  end
  local versions = {}
  for i, nonce in ipairs(nonces) do
    if active[nonce] then
      versions[#versions + 1] = nonce
      versions[#versions + 1] = tonumber(redis.call('HGET', keys[i + 3], 'v'))
    end
  end
  local reply = cmsgpack.pack({ versions, {} })
  redis.call('HSET', keys[2], 'token', new_token, 'operation', operation, 'reply', reply)
  return { 'ok', set, reply }
end

redis.register_function('raymesh_change_set_1', change_set)
redis.register_function('raymesh_bid_1', bid)
