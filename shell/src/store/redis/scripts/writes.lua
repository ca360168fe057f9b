-- What the scripts that write records need. Versions and floors are digits of one width, so that they compare as texts: a number in
-- Lua has 53 bits. Each sign-in runs all of this, so what other scripts need is in generation.lua.

local NO_OVERRIDES = '000000000000000000000000000000000000000000000000000000000000'
-- The floor of a node that writes never again.
local CLOSED = 'x'

local function is_alive(entry)
  return entry and string.sub(entry, 1, 1) == 'B'
end

-- Whether the meta takes a write that was decided in this generation and sent on this connection.
local function takes(versions, generation, epoch)
  local floor = versions[3]
  return versions[1] == generation and (not floor or (floor ~= CLOSED and floor <= epoch))
end
