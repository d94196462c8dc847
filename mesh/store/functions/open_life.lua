-- open_life(life, leader, grants, grant ...): a leader begins a life on the primary that it has
-- chosen.

local function open_life(keys, args)
  local operation, previous, number, token, partitions, set, set_version, nonces = arguments(args)
  local life = redis.call('HMGET', keys[1], 'run_id', 'number', 'partitions', 'set_version')
  local leader = redis.call('HMGET', keys[2], 'token', 'operation')
  local recorded_token, recorded_number = tonumber(leader[1]), tonumber(life[2]) or 0
  if leader[2] == operation and recorded_token == token then
    if life[1] ~= run_id() or recorded_number ~= number then
      return { 'closed' }
    end
    redis.call('HINCRBY', keys[2], 't', 1) -- makes the WAIT behind it wait, on a new connection too
    return { 'ok', redis.call('HGET', keys[1], 'set') }
  end
  if recorded_token and token <= recorded_token then
    return { 'deposed' }
  end
  if recorded_number ~= previous then
    return { 'conflict', 'life ' .. recorded_number .. ' is recorded, not ' .. previous }
  end
  if number <= previous then
    return { 'conflict', 'life ' .. number .. ' is not above ' .. previous }
  end
  if life[3] and tonumber(life[3]) ~= partitions then
    return { 'conflict', 'the mesh has ' .. life[3] .. ' partitions, not ' .. partitions }
  end
  local ended, undeclared = active_grants(keys[3], nonces)
  if not ended then
    return { 'conflict', undeclared }
  end

  -- Active grants are deleted, so that a process may come back under its nonce with an empty one;
  -- records of revoked grants stay for good.
  for i, nonce in ipairs(nonces) do
    if ended[nonce] then
      redis.call('DEL', keys[i + 3])
    end
  end
  redis.call('DEL', keys[3])
  redis.call('HSET', keys[1], 'run_id', run_id(), 'number', number, 'partitions', partitions,
    'opened_from', life[4] or 0, 'set', set, 'set_version', set_version)
  redis.call('HSET', keys[2], 'token', token, 'operation', operation,
    'reply', cmsgpack.pack({ {}, {} }))
  return { 'ok', set }
end

redis.register_function('raymesh_open_life_1', open_life)
