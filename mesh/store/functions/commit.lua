-- commit(life, grant, p:<partition> ...): one batch of one lane, all its partitions.

local ASYNC_LANE = 3 -- see mesh.core.lanes: a failover may have lost its last batches

-- Numbers of 64 bits do not fit Lua's doubles; comparing strings would go by the server's locale.
local function is_later(renewal, recorded)
  local high, low = struct.unpack('>I4I4', renewal)
  local recorded_high, recorded_low = struct.unpack('>I4I4', recorded)
  return high > recorded_high or (high == recorded_high and low > recorded_low)
end

-- The first error of writing one partition's share, or nil.
local function write(key, fields, deleted)
  for first = 1, #fields, CHUNK do
    local last = math.min(first + CHUNK - 1, #fields)
    local reply = redis.pcall('HSET', key, unpack(fields, first, last))
    if type(reply) == 'table' and reply.err then
      return reply.err
    end
  end
  for first = 1, #deleted, CHUNK do
    local last = math.min(first + CHUNK - 1, #deleted)
    local reply = redis.pcall('HDEL', key, unpack(deleted, first, last))
    if type(reply) == 'table' and reply.err then
      return reply.err
    end
  end
end

-- A partition that failed the first time says so again when its batch is repeated.
local function recall_failures(grant_key, lane, seq, verdicts)
  local failed = redis.call('HGET', grant_key, 'f' .. lane)
  if failed then
    local failed_seq, first_verdicts, detail = unpack(cmsgpack.unpack(failed))
    if failed_seq == seq then
      for i = 1, #verdicts do
        if string.sub(first_verdicts, i, i) == '\2' then
          verdicts[i] = '\2'
        end
      end
      return detail
    end
  end
  return ''
end

local function commit(keys, args)
  local life, version, lane, seq, renewal, entries = arguments(args)
  local count = #keys - 2
  if #entries ~= 4 * count or #renewal ~= 8 then
    return redis.error_reply('ERR raymesh: malformed batch')
  end
  local set = open_set(keys[1], life)
  if not set then
    return { 'closed' }
  end
  local grant_key = keys[2]
  local grant = redis.call('HMGET', grant_key, 's', 'l', 'v', 'e', 'r', 'q' .. lane)
  local refused = refusal(grant[1], grant[2], grant[3], life, version)
  if refused then
    return { refused }
  end
  local epochs, last = grant[4], tonumber(grant[6]) or 0
  if seq > last + 1 and lane ~= ASYNC_LANE then
    return { 'gap', tostring(last) }
  end

  local verdicts = {}
  for i = 1, count do
    local at = 4 * i - 3
    local fields, deleted = entries[at + 2], entries[at + 3]
    if type(fields) ~= 'table' or #fields % 2 ~= 0 or type(deleted) ~= 'table' then
      return redis.error_reply('ERR raymesh: malformed entry')
    end
    local epoch = entries[at + 1]
    local held = epoch ~= NOT_HELD and slot(epochs, entries[at]) == epoch
    verdicts[i] = held and '\0' or '\1'
  end

  -- Two lanes may arrive in the other order, and old bytes late: the number recorded never goes
  -- back, or a leader could take a lease for one that it saw long ago.
  if is_later(grant[5], renewal) then
    renewal = grant[5]
  end
  if seq <= last then
    -- The one write of a repetition: it makes the WAIT behind it wait, on a new connection too.
    redis.call('HSET', grant_key, 'r', renewal)
    local detail = recall_failures(grant_key, lane, seq, verdicts)
    return { 'ok', set, 1, table.concat(verdicts), detail }
  end

  -- The grant first: where the server lets this caller write nothing, nothing is written.
  redis.call('HSET', grant_key, 'q' .. lane, seq, 'r', renewal)
  local detail
  for i = 1, count do
    if verdicts[i] == '\0' then
      local problem = write(keys[i + 2], entries[4 * i - 1], entries[4 * i])
      if problem then
        verdicts[i] = '\2'
        detail = detail or problem
      end
    end
  end
  verdicts = table.concat(verdicts)
  if detail then
    redis.call('HSET', grant_key, 'f' .. lane, cmsgpack.pack({ seq, verdicts, detail }))
  end
  return { 'ok', set, 0, verdicts, detail or '' }
end

redis.register_function('raymesh_commit_1', commit)
-- For a batch without entries, which takes no memory: a server that has none left still has its handlers
-- renew their leases, and what is acknowledged is read all the while.
redis.register_function({
  function_name = 'raymesh_renew_1',
  callback = commit,
  flags = { 'allow-oom' },
})
