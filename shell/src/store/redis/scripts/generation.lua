-- What the scripts need that look at the generation or at nodes.

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

-- The node writes never again, and reads no inbox.
local function close(meta, inbox, node)
  redis.call('DEL', inbox)
  if redis.call('EXISTS', meta) == 1 then redis.call('HSET', meta, 'floor ' .. node, CLOSED) end
end
