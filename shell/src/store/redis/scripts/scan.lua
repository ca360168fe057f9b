-- KEYS: meta, records. ARGV: position, number of records to look at, '1' to have those in which a slot lingers, nodes whose records
-- are left out. A value: stamp (8 bytes), 1 if a slot lingers, number of connected nodes (2 bytes), those nodes (8 bytes each), record.
local page = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])
local except = {}
for i = 4, #ARGV do except[ARGV[i]] = true end
local function is_wanted(value)
  local lingers, high, low = string.byte(value, 9, 11)
  -- Nothing that this software writes. The caller names the user.
  if not low then return true end
  if lingers == 1 and ARGV[3] == '1' then return true end
  for i = 0, high * 256 + low - 1 do
    if not except[string.sub(value, 12 + 8 * i, 19 + 8 * i)] then return true end
  end
  return false
end
local records, all = {}, page[2]
for i = 1, #all, 2 do
  if is_wanted(all[i + 1]) then
    records[#records + 1] = all[i]
    records[#records + 1] = all[i + 1]
  end
end
return { redis.call('HGET', KEYS[1], 'generation'), page[1], records }
