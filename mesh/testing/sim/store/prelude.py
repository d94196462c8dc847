"""What a server puts round a library of functions, in Lua: redis.*, cmsgpack, struct, errors, replies.

The chunk gets this model's shims and returns what `lua.py` calls: run a function, the same with few
arguments, load a library, compile one.
"""

PRELUDE = rb"""
local call, pcall_, register, why, unpack_blob, pack_blob, pack_struct, unpack_struct = ...
local error, ipairs, pairs, setmetatable, tostring, type, xpcall =
  error, ipairs, pairs, setmetatable, tostring, type, xpcall
local getinfo, rawset, select = debug.getinfo, rawset, select
local string, table, unpack = string, table, unpack
local compile, globals, setfenv = loadstring, _G, setfenv
redis = { LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3 }
redis.call, redis.pcall = call, pcall_ -- no Lua in between: a tail call would lose the caller's line

function redis.status_reply(text) return { ok = text } end

function redis.error_reply(text)
  text = string.gsub(text, '^%-', '')
  if not string.find(text, ' ', 1, true) then text = 'ERR ' .. text end
  return { err = text }
end

function redis.log() end
function redis.setresp() end

local loading = { REDIS_VERSION = '7.2.4', log = redis.log } -- all there is while a library is loaded
for name, value in pairs(redis) do
  if string.find(name, '^LOG_') then loading[name] = value end
end

function loading.register_function(named, callback)
  if type(named) == 'table' then
    register(named.function_name, named.callback, unpack(named.flags or {}))
  else
    register(named, callback)
  end
end

local byte, sub, BEYOND = string.byte, string.sub, 2 ^ 40

-- The value at that place of a blob, and the place behind it; BEYOND: it is of a rarer kind, or cut off.
local function decoded(blob, at)
  local tag = byte(blob, at)
  if not tag then return nil, BEYOND end
  if tag < 0x80 then return tag, at + 1 end
  local count, kind = nil, tag
  if tag < 0x90 then return nil, BEYOND end
  if tag < 0xa0 then
    count, kind, at = tag - 0x90, 0xdc, at + 1
  elseif tag < 0xc0 then
    count, kind, at = tag - 0xa0, 0xda, at + 1
  elseif tag == 0xcc or tag == 0xd9 then
    count, kind, at = byte(blob, at + 1), tag + 1, at + 2
  elseif tag == 0xcd or tag == 0xda or tag == 0xdc then
    local high, low = byte(blob, at + 1, at + 2)
    count, at = low and high * 256 + low, at + 3
  elseif tag == 0xce then
    local a, b, c, d = byte(blob, at + 1, at + 4)
    return d and ((a * 256 + b) * 256 + c) * 256 + d, d and at + 5 or BEYOND
  elseif tag == 0xc0 then return nil, at + 1
  elseif tag == 0xc2 then return false, at + 1
  elseif tag == 0xc3 then return true, at + 1
  end
  if not count then return nil, BEYOND end
  if kind == 0xcd then return count, at end
  if kind == 0xda then return sub(blob, at, at + count - 1), at + count end
  local list = {}
  for i = 1, count do
    list[i], at = decoded(blob, at)
  end
  return list, at
end

cmsgpack = { pack = pack_blob }

-- Here what a mesh sends, which takes a third of the time of a way through Python and back; there the rest.
function cmsgpack.unpack(blob)
  if type(blob) == 'string' then
    local value, behind = decoded(blob, 1)
    if behind == #blob + 1 then return value end
  end
  local value = unpack_blob(blob)
  return value
end

struct = { pack = pack_struct }

function struct.unpack(format, data, ...)
  local size = format == '>I4I4' and 4 or format == '>I2I2' and 2
  if not size or select('#', ...) > 0 or #data < 2 * size then
    return unpack_struct(format, data, ...)
  end
  local a, b, c, d, e, f, g, h = byte(data, 1, 2 * size)
  if size == 2 then return a * 256 + b, c * 256 + d, 5 end
  return ((a * 256 + b) * 256 + c) * 256 + d, ((e * 256 + f) * 256 + g) * 256 + h, 9
end

local function encoded(value)
  local kind = type(value)
  if kind == 'string' then return '$' .. #value .. '\r\n' .. value .. '\r\n' end
  if kind == 'number' then return string.format(':%d\r\n', value) end
  if kind == 'table' then
    if value.err then return '-' .. string.gsub(value.err, '[\r\n]', ' ') .. '\r\n' end
    if value.ok then return '+' .. string.gsub(value.ok, '[\r\n]', ' ') .. '\r\n' end
    local pieces, count = { '' }, 0
    while value[count + 1] ~= nil do
      count = count + 1
      pieces[count + 1] = encoded(value[count])
    end
    pieces[1] = '*' .. count .. '\r\n'
    return table.concat(pieces)
  end
  return value == true and ':1\r\n' or '$-1\r\n'
end

local function explained(problem)
  local level, where = 2, nil
  repeat
    where = getinfo(level, 'Sl')
    level = level + 1
  until not where or where.source == '@user_function'
  if type(problem) ~= 'table' then
    problem = { err = why(problem) or 'ERR ' .. tostring(problem) }
  end
  if where then problem.source, problem.line = where.source, where.currentline end
  return problem
end

local function run(name, callback, keys, args)
  local fine, reply = xpcall(function() return callback(keys, args) end, explained)
  if fine then return encoded(reply) end
  local text = string.gsub(tostring(reply.err), '[\r\n]', ' ') .. ' script: ' .. name
  if reply.line then text = text .. ', on ' .. reply.source .. ':' .. reply.line .. '.' end
  return '-' .. text .. '\r\n'
end

local function run_few(name, callback, count, ...)
  local keys, args = { ... }, {}
  for i = count + 1, select('#', ...) do
    args[i - count], keys[i] = keys[i], nil
  end
  return run(name, callback, keys, args)
end

local protected = {
  __index = function(_, name)
    local said = "Script attempted to access nonexistent global variable '" .. tostring(name) .. "'"
    error(said, 2)
  end,
  __newindex = function() error('Attempt to modify a readonly table', 2) end,
}
setmetatable(loading, protected)

local api = {} -- what functions may use; the rest of Lua is nobody's
local names = 'redis string table math type pairs ipairs next tostring tonumber setmetatable '
  .. 'getmetatable unpack select error assert pcall xpcall rawget rawset rawequal cmsgpack struct '
  .. 'coroutine collectgarbage _VERSION'
for name in string.gmatch(names, '[%a_]+') do
  api[name] = globals[name]
end
local env = setmetatable({}, protected) -- what a library's code sees as its globals

local function compiled(source, name)
  local chunk, problem = compile(source, name)
  if not chunk then return nil, problem end
  return setfenv(chunk, env)
end

local function load(chunk)
  for name in pairs(api) do
    rawset(env, name, nil)
  end
  rawset(env, 'redis', loading)
  local fine, problem = xpcall(chunk, explained)
  for name, value in pairs(api) do
    rawset(env, name, value)
  end
  return not fine and tostring(problem.err) or nil
end

return run, run_few, load, compiled
"""
