-- takeover(life, leader, table, grants, grant ...): the one call by which a leader changes who owns
-- what.
--
-- Arguments name grants by their place among the declared ones. Moves are columns: partitions in ascending
-- order, from (or 0), from epoch, to, epoch; one value in place of a column stands for all its rows.

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

function Plan:not_held(from, partition, from_epoch)
  local grant = self:grant(from)
  if grant.was ~= 'active' then
    return self:name(from) .. ' is ' .. (grant.was or 'not recorded')
  end
  local epoch = slot(grant.epochs, partition)
  return self:name(from) .. ' holds it at ' .. epoch_text(epoch) .. ', not ' .. epoch_text(from_epoch)
end

-- Why that move cannot be, or nil. Asked of each before anything is written, and there may be thousands.
function Plan:wrong(partition, from, from_epoch, to, epoch)
  if partition < 0 or partition >= self.partitions or #epoch ~= 4 or epoch == NOT_HELD then
    return 'out of range'
  end
  if from == 0 then
    local problem = self:nobody_holds(partition)
    if problem then
      return problem
    end
  else
    local giver = self.grants[from] or self:grant(from)
    local at = partition * 4
    local held = giver.was == 'active' and string.sub(giver.epochs, at + 1, at + 4)
    if held ~= from_epoch or from_epoch == NOT_HELD then
      return self:not_held(from, partition, from_epoch)
    end
  end
  local receiver = self.grants[to] or self:grant(to)
  if receiver.state ~= 'active' then
    return self:name(to) .. ' is ' .. (receiver.state or 'not recorded')
  end
end

-- What the move changes in the grants' arrays; a revoked one loses its array as a whole.
function Plan:edit(partition, from, to, epoch)
  if from ~= 0 and from ~= to and self.grants[from].state == 'active' then
    self:put(self.grants[from], partition, NOT_HELD)
  end
  self:put(self.grants[to], partition, epoch)
end

function Plan:put(grant, partition, epoch)
  local edits = grant.edits
  if not edits then
    edits = {}
    grant.edits = edits
  end
  local count = #edits
  edits[count + 1] = partition
  edits[count + 2] = epoch
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
  local partitions, givers, from_epochs, receivers, epochs = unpack(moves)
  local giver = type(givers) ~= 'table' and givers
  local from_epoch = type(from_epochs) ~= 'table' and from_epochs
  local receiver = type(receivers) ~= 'table' and receivers
  local epoch = type(epochs) ~= 'table' and epochs
  local previous = -1
  for i = 1, #partitions do
    local partition, from, to = partitions[i], giver or givers[i], receiver or receivers[i]
    local new = epoch or epochs[i]
    local problem = partition == previous and 'moved twice'
      or plan:wrong(partition, from, from_epoch or from_epochs[i], to, new)
    if problem then
      return 'partition ' .. partition .. ': ' .. problem
    end
    plan:edit(partition, from, to, new)
    previous = partition
  end
end

local function names_nobody(givers)
  if type(givers) ~= 'table' then
    return givers == 0
  end
  for _, from in ipairs(givers) do
    if from == 0 then
      return true
    end
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
  if names_nobody(moves[2]) then -- an assertion about all grants needs all of them declared
    local active, undeclared = active_grants(keys[4], nonces)
    if not active then
      return { 'conflict', undeclared }
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
