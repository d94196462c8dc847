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
    grant.pieces, grant.count, grant.rest = {}, 0, 1 -- of its array as it will be, and what is still to come
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
  grant.changed = true
end

function Plan:revoke(i)
  local grant = self:grant(i)
  if not grant.was then
    return self:name(i) .. ' is not recorded'
  end
  if grant.state == 'active' then
    grant.state = 'revoked'
    grant.changed = true
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

-- Why that move cannot be, or nil. Asked of those that are not plainly sound: there may be thousands.
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
    local giver = self:grant(from)
    local held = giver.was == 'active' and slot(giver.epochs, partition)
    if held ~= from_epoch or from_epoch == NOT_HELD then
      return self:not_held(from, partition, from_epoch)
    end
  end
  local receiver = self:grant(to)
  if receiver.state ~= 'active' then
    return self:name(to) .. ' is ' .. (receiver.state or 'not recorded')
  end
end

-- One partition's epoch in a grant's array, which is put together from slices: no work per untouched
-- partition. They come in ascending order; `at` is four times the partition.
local function put(grant, at, epoch)
  local pieces, count = grant.pieces, grant.count
  pieces[count + 1] = string.sub(grant.epochs, grant.rest, at)
  pieces[count + 2] = epoch
  grant.count, grant.rest, grant.changed = count + 2, at + 5, true
end

local function patched(grant)
  local pieces = grant.pieces
  pieces[grant.count + 1] = string.sub(grant.epochs, grant.rest)
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
  local epochs = patched(grant)
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
  local grants, all, sub, previous = plan.grants, plan.partitions, string.sub, -1
  for i = 1, #partitions do
    local partition, from, to = partitions[i], giver or givers[i], receiver or receivers[i]
    local old, new = from_epoch or from_epochs[i], epoch or epochs[i]
    local at, gives, takes = partition * 4, grants[from], grants[to]
    -- A death moves thousands at once; what is no plain move out of one active grant into another is
    -- looked at more closely.
    local sound = gives and takes and gives.was == 'active' and takes.state == 'active'
      and partition > previous and partition < all
      and old ~= NOT_HELD and sub(gives.epochs, at + 1, at + 4) == old
      and new ~= NOT_HELD and #new == 4
    if not sound then
      local problem = partition == previous and 'moved twice'
        or plan:wrong(partition, from, old, to, new)
      if problem then
        return 'partition ' .. partition .. ': ' .. problem
      end
      gives, takes = grants[from], grants[to]
    end
    if from ~= 0 and from ~= to and gives.state == 'active' then -- a revoked one loses its whole array
      put(gives, at, NOT_HELD)
    end
    put(takes, at, new)
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
    if grant and grant.changed then
      plan:write(i, life, keys[4])
    end
    if grant and (grant.changed or grant.renewal_asked) then
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
