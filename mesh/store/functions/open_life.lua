-- open_life(life, leader, grants, grant ...): a leader begins a life on the primary that it has
-- chosen.

local function open_life(keys, args)
  local operation, previous, number, token, partitions, set, set_version, nonces, asked_at_us, max_age_us,
    server = arguments(args)
  local life = redis.call('HMGET', keys[1], 'run_id', 'number', 'partitions', 'set_version')
  local leader = redis.call('HMGET', keys[2], 'token', 'operation', 'reply')
  local recorded_token, recorded_number = tonumber(leader[1]), tonumber(life[2]) or 0
  if leader[2] == operation and recorded_token == token then
    if life[1] ~= run_id() or recorded_number ~= number then
      return { 'closed' }
    end
    redis.call('HINCRBY', keys[2], 't', 1) -- makes the WAIT behind it wait, on a new connection too
    return { 'ok', redis.call('HGET', keys[1], 'set'), leader[3] }
  end
  if recorded_token and token <= recorded_token then
    return { 'deposed' }
  end
  if server ~= '' and server ~= run_id() then
    return { 'conflict', 'it was decided for run ' .. server .. ', and this is ' .. run_id() }
  end
  if recorded_number ~= previous then
    return { 'conflict', 'life ' .. whole(recorded_number) .. ' is recorded, not ' .. whole(previous) }
  end
  if number <= previous then
    return { 'conflict', 'life ' .. whole(number) .. ' is not above ' .. whole(previous) }
  end
  if life[3] and tonumber(life[3]) ~= partitions then
    return { 'conflict', 'the mesh has ' .. life[3] .. ' partitions, not ' .. partitions }
  end
  if asked_at_us ~= NOT_ASKED and age_us(asked_at_us) > max_age_us then
    return { 'old' }
  end
  local active, undeclared = active_grants(keys[3], nonces)
  if not active then
    return { 'conflict', undeclared }
  end

  -- An active grant goes on: its holder may continue each partition whose epoch is the one it knows
  -- (schedule M1). Records of revoked grants stay as they are, for good.
  local versions = {}
  for i, nonce in ipairs(nonces) do
    if active[nonce] then
      local version = redis.call('HINCRBY', keys[i + 3], 'v', 1)
      redis.call('HSET', keys[i + 3], 'l', number)
      versions[#versions + 1] = nonce
      versions[#versions + 1] = version
    end
  end
  local reply = cmsgpack.pack({ versions, {} })
  redis.call('HSET', keys[1], 'run_id', run_id(), 'number', whole(number), 'partitions', partitions,
    'opened_from', life[4] or 0, 'set', set, 'set_version', set_version, 'history', history())
  redis.call('HSET', keys[2], 'token', token, 'operation', operation, 'reply', reply)
  return { 'ok', set, reply }
end

redis.register_function('raymesh_open_life_3', open_life)
