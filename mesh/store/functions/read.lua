-- load and scan (a partition's owner), recorded and renewals (a leader): nothing here writes.

-- A reply, or its error's text where the key is of another type: that is one partition's matter,
-- any other error is the whole call's.
local function unless_foreign(reply)
  if not reply.err then
    return reply
  end
  if not string.find(reply.err, '^%-?WRONGTYPE') then
    error(reply)
  end
  return nil, reply.err
end

-- HMGET in pieces that unpack() can take; an error's text where the key is no hash.
local function values(key, fields)
  if #fields <= CHUNK then
    local found, foreign = unless_foreign(redis.pcall('HMGET', key, unpack(fields)))
    return found or foreign
  end
  local all = {}
  for first = 1, #fields, CHUNK do
    local last = math.min(first + CHUNK - 1, #fields)
    local found, foreign = unless_foreign(redis.pcall('HMGET', key, unpack(fields, first, last)))
    if not found then
      return foreign
    end
    for _, value in ipairs(found) do
      all[#all + 1] = value
    end
  end
  return all
end

-- The epochs that the caller's grant holds, or nil and why it may not read.
local function readable(keys, life, version)
  if not open_set(keys[1], life) then
    return nil, 'closed'
  end
  local grant = redis.call('HMGET', keys[2], 's', 'l', 'v', 'e')
  local refused = refusal(grant[1], grant[2], grant[3], life, version)
  if refused then
    return nil, refused
  end
  return grant[4]
end

-- load(life, grant, p:<partition> ...)
local function load(keys, args)
  local life, version, wants = arguments(args)
  local epochs, refused = readable(keys, life, version)
  if not epochs then
    return { refused }
  end
  local found = {}
  for i = 1, #keys - 2 do
    local at = 3 * i - 2
    local fields, epoch = wants[at + 2], wants[at + 1]
    if epoch == NOT_HELD or slot(epochs, wants[at]) ~= epoch then
      found[i] = false
    elseif #fields == 0 then
      found[i] = {}
    else
      found[i] = values(keys[i + 2], fields)
    end
  end
  return { 'ok', found }
end

-- scan(life, grant, p:<partition>)
local function scan(keys, args)
  local life, version, partition, epoch, cursor, count = arguments(args)
  local epochs, refused = readable(keys, life, version)
  if not epochs then
    return { refused }
  end
  if epoch == NOT_HELD or slot(epochs, partition) ~= epoch then
    return { 'conflict' }
  end
  local page, foreign = unless_foreign(redis.pcall('HSCAN', keys[3], cursor, 'COUNT', count))
  if not page then
    return { 'ok', '0', {}, foreign }
  end
  return { 'ok', page[1], page[2] }
end

-- sweep(life, grant, p:<partition> ...): the whole of each small partition; false for one that is
-- not held, of another type, larger than `most` fields or `bytes`, or beyond the call's budget.
local function sweep(keys, args)
  local life, version, most, bytes, budget, wants = arguments(args)
  local epochs, refused = readable(keys, life, version)
  if not epochs then
    return { refused }
  end
  local found = {}
  for i = 1, #keys - 2 do
    local at = 2 * i - 1
    found[i] = false
    if budget > 0 and wants[at + 1] ~= NOT_HELD and slot(epochs, wants[at]) == wants[at + 1] then
      local length = redis.pcall('HLEN', keys[i + 2])
      local small = type(length) == 'number' and length <= most
      if small and (redis.call('MEMORY', 'USAGE', keys[i + 2]) or 0) <= bytes then
        budget = budget - length
        found[i] = redis.call('HGETALL', keys[i + 2])
      end
    end
  end
  return { 'ok', found }
end

-- recorded(life, leader, table, grants)
local function recorded(keys)
  local life = redis.call('HMGET', keys[1], 'run_id', 'number', 'partitions', 'opened_from', 'set',
    'history')
  local leader = redis.call('HMGET', keys[2], 'token', 'intents')
  local routes = redis.call('GET', keys[3])
  return { run_id(), life, leader, routes, redis.call('HGETALL', keys[4]) }
end

-- renewals(life, grant ...): each grant's renewal number, as given; nil for one not recorded.
local function renewals(keys, args)
  if not open_set(keys[1], tonumber(args[1])) then
    return { 'closed' }
  end
  local numbers = {}
  for i = 2, #keys do
    numbers[i - 1] = redis.call('HGET', keys[i], 'r')
  end
  return { 'ok', numbers }
end

redis.register_function({ function_name = 'raymesh_load_1', callback = load, flags = { 'no-writes' } })
redis.register_function({ function_name = 'raymesh_scan_1', callback = scan, flags = { 'no-writes' } })
redis.register_function({ function_name = 'raymesh_sweep_1', callback = sweep, flags = { 'no-writes' } })
redis.register_function({
  function_name = 'raymesh_recorded_1',
  callback = recorded,
  flags = { 'no-writes' },
})
redis.register_function({
  function_name = 'raymesh_renewals_1',
  callback = renewals,
  flags = { 'no-writes' },
})
