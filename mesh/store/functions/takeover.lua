-- takeover(life, leader, table, grants, grant ...): the one call by which a leader changes who owns
-- what.
--
-- Arguments name grants by their place among the declared ones. Moves are flat, five values each
-- (partition, from or 0, from epoch, to, epoch), in ascending order of partitions.

local Plan = {} -- grants as they will be; nothing is written before every assertion has held
Plan.__index = Plan

function Plan.new(keys, nonces, partitions)
  return setmetatable({ keys = keys, nonces = nonces, partitions = partitions, grants = {} }, Plan)
end

function Plan:grant(i)
  local grant = self.grants[i]
  if not grant then
    local found = redis.call('HMGET', self.keys[i + 4], 's', 'v', 'e', 'r')
    grant = { state = found[1], version = tonumber(found[2]), epochs = found[3], renewal = found[4] }
    grant.was = grant.state -- before this call
    self.grants[i] = grant
  end
  return grant
end

function Plan:name(i)
  return 'grant ' .. hex(self.nonces[i])
end

function Plan:enroll(i, handler)
  local grant = self:grant(i)
  if grant.state then
    return self:name(i) .. ' is already recorded as ' .. grant.state
  end
  grant.state, grant.version, grant.renewal, grant.handler = 'active', 0, NEVER, handler
  grant.epochs = string.rep(NOT_HELD, self.partitions)
  grant.edits = {}
end

function Plan:revoke(i)
  local grant = self:grant(i)
  if not grant.was then
    return self:name(i) .. ' is not recorded'
  end
  if grant.state == 'active' then
    grant.state = 'revoked'
    grant.edits = {}
  end
  grant.renewal_asked = true
end

-- Nobody may hold the partition. A grant that holds nothing at all is the common case at the start.
function Plan:nobody_holds(partition)
  if not self.holders then
    local empty = string.rep(NOT_HELD, self.partitions)
    self.holders = {}
    for i = 1, #self.nonces do
      local grant = self:grant(i)
      if grant.was == 'active' and grant.epochs ~= empty then
        self.holders[#self.holders + 1] = i
      end
    end
  end
  for _, i in ipairs(self.holders) do
    local epoch = slot(self:grant(i).epochs, partition)
    if epoch ~= NOT_HELD then
      return self:name(i) .. ' holds it at ' .. epoch_text(epoch) .. ', not nobody'
    end
  end
end

function Plan:is_held(partition, from, from_epoch)
  local grant = self:grant(from)
  if grant.was ~= 'active' then
    return self:name(from) .. ' is ' .. (grant.was or 'not recorded')
  end
  local epoch = slot(grant.epochs, partition)
  if epoch ~= from_epoch or epoch == NOT_HELD then
    return self:name(from) .. ' holds it at ' .. epoch_text(epoch) .. ', not ' .. epoch_text(from_epoch)
  end
end

function Plan:move(partition, from, from_epoch, to, epoch)
  if partition < 0 or partition >= self.partitions or #epoch ~= 4 or epoch == NOT_HELD then
    return 'out of range'
  end
  local problem
  if from == 0 then
    problem = self:nobody_holds(partition)
  else
    problem = self:is_held(partition, from, from_epoch)
  end
  if problem then
    return problem
  end
  local receiver = self:grant(to)
  if receiver.state ~= 'active' then
    return self:name(to) .. ' is ' .. (receiver.state or 'not recorded')
  end
  if from ~= 0 and from ~= to then
    self:edit(from, partition, NOT_HELD)
  end
  self:edit(to, partition, epoch)
end

function Plan:edit(i, partition, epoch)
  local edits = self:grant(i).edits or {}
  edits[#edits + 1] = partition
  edits[#edits + 1] = epoch
  self.grants[i].edits = edits
end

-- The array with its edits in ascending order, put together from slices: no work per untouched
-- partition.
local function patched(epochs, edits)
  local pieces, at = {}, 1
  for i = 1, #edits, 2 do
    local first = edits[i] * 4 + 1
    pieces[#pieces + 1] = string.sub(epochs, at, first - 1)
    pieces[#pieces + 1] = edits[i + 1]
    at = first + 4
  end
  pieces[#pieces + 1] = string.sub(epochs, at)
  return table.concat(pieces)
end

function Plan:write(i, life, grants_key)
  local grant, key, nonce = self.grants[i], self.keys[i + 4], self.nonces[i]
  grant.version = grant.version + 1
  if grant.state == 'revoked' then -- the record stays: this nonce is never enrolled again
    redis.call('HSET', key, 's', 'revoked', 'v', grant.version, 'l', life, 'e', '')
    redis.call('HDEL', grants_key, nonce)
    return
  end
  local epochs = patched(grant.epochs, grant.edits)
  if grant.handler then
    redis.call('HSET', grants_key, nonce, grant.handler)
    redis.call('HSET', key, 's', 'active', 'v', grant.version, 'l', life, 'e', epochs, 'r', NEVER,
      'q0', 0, 'q1', 0)
  else
    redis.call('HSET', key, 'v', grant.version, 'l', life, 'e', epochs)
  end
end

local function planned(plan, enroll, revoke, moves)
  for i = 1, #enroll, 2 do
    local problem = plan:enroll(enroll[i], enroll[i + 1])
    if problem then
      return problem
    end
  end
  for _, i in ipairs(revoke) do
    local problem = plan:revoke(i)
    if problem then
      return problem
    end
  end
  local previous = -1
  for at = 1, #moves, 5 do
    local partition = moves[at]
    local problem = partition == previous and 'moved twice'
      or plan:move(partition, moves[at + 1], moves[at + 2], moves[at + 3], moves[at + 4])
    if problem then
      return 'partition ' .. partition .. ': ' .. problem
    end
    previous = partition
  end
end

local function takeover(keys, args)
  local operation, life, token, nonces, enroll, revoke, moves, routes, intents = arguments(args)
  local set = open_set(keys[1], life)
  if not set then
    return { 'closed' }
  end
  local leader = redis.call('HMGET', keys[2], 'token', 'operation', 'reply')
  if tonumber(leader[1]) ~= token then
    return { 'deposed' }
  end
  if leader[2] == operation then
    redis.call('HINCRBY', keys[2], 't', 1) -- makes the WAIT behind it wait, on a new connection too
    return { 'ok', set, leader[3] }
  end
  for at = 2, #moves, 5 do
    if moves[at] == 0 then -- an assertion about all grants needs all of them declared
      local active, undeclared = active_grants(keys[4], nonces)
      if not active then
        return { 'conflict', undeclared }
      end
      break
    end
  end
  local plan = Plan.new(keys, nonces, tonumber(redis.call('HGET', keys[1], 'partitions')))
  local problem = planned(plan, enroll, revoke, moves)
  if problem then
    return { 'conflict', problem }
  end

  local versions, renewals_asked = {}, {}
  for i = 1, #nonces do
    local grant = plan.grants[i]
    if grant and grant.edits then
      plan:write(i, life, keys[4])
    end
    if grant and (grant.edits or grant.renewal_asked) then
      versions[#versions + 1] = nonces[i]
      versions[#versions + 1] = grant.version
    end
    if grant and grant.renewal_asked then
      renewals_asked[#renewals_asked + 1] = nonces[i]
      renewals_asked[#renewals_asked + 1] = grant.renewal
    end
  end
  redis.call('SET', keys[3], routes)
  local reply = cmsgpack.pack({ versions, renewals_asked })
  redis.call('HSET', keys[2], 'operation', operation, 'reply', reply, 'intents', intents)
  return { 'ok', set, reply }
end

redis.register_function('raymesh_takeover_1', takeover)
