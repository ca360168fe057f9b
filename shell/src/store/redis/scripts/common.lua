-- What several scripts need. Versions and floors are digits of one width, so that they compare as texts: a number in Lua has 53
-- bits.

local NO_OVERRIDES = string.rep('0', 60)
-- The floor of a node that writes never again.
local CLOSED = 'x'

-- The history of this server: another one once it has lost data.
local function history()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

-- The parts of what the nodes' key has of the generation: its id, the history in which it began, its number, and the state of its
-- gate.
local function generation_of(nodes)
  local text = redis.call('HGET', nodes, 'generation')
  if text then return string.match(text, '^(%S+) (%S+) (%S+) (%S+)$') end
end

-- Whether this generation is in force, and this server has lost nothing since it began. And the state of its gate.
local function in_force(nodes, generation)
  local id, began_in, number, gate = generation_of(nodes)
  return id == generation and began_in == history(), gate, number
end

local function is_alive(entry)
  return entry and string.sub(entry, 1, 1) == 'B'
end

-- The node writes never again, and reads no inbox.
local function close(meta, inbox, node)
  redis.call('DEL', inbox)
  if redis.call('EXISTS', meta) == 1 then redis.call('HSET', meta, 'floor ' .. node, CLOSED) end
end

-- Whether the meta takes a write that was decided in this generation and sent on this connection.
local function takes(versions, generation, epoch)
  local floor = versions[3]
  return versions[1] == generation and (not floor or (floor ~= CLOSED and floor <= epoch))
end
