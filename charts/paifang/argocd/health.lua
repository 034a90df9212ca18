-- The health of each of the six kinds of paifang.dev, for Argo CD. They share their conditions, so they share this.
-- What is wrong comes first: after a bad edit the last good release may still be served everywhere.
local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    conditions[condition.type] = condition
  end
end

local ready = conditions.Ready
if ready == nil then
  return { status = "Progressing", message = "Waiting for the controller" }
end
if ready.observedGeneration ~= nil and ready.observedGeneration < obj.metadata.generation then
  return { status = "Progressing", message = "Waiting for the controller to see the last change" }
end

for _, wrong in ipairs({
  { type = "Accepted", status = "False" },
  { type = "ResolvedRefs", status = "False" },
  { type = "Conflicted", status = "True" },
  { type = "PartiallyInvalid", status = "True" },
}) do
  local condition = conditions[wrong.type]
  if condition ~= nil and condition.status == wrong.status then
    return { status = "Degraded", message = condition.reason .. ": " .. condition.message }
  end
end

if ready.status == "True" then
  -- A certificate that ends soon is worth a word, but nothing is broken yet.
  local expiring = conditions.CertificateExpiring
  if expiring ~= nil and expiring.status == "True" then
    return { status = "Healthy", message = expiring.message }
  end
  return { status = "Healthy", message = ready.message }
end

local programmed = conditions.Programmed
if programmed ~= nil and programmed.status ~= "True" then
  return { status = "Progressing", message = programmed.message }
end
return { status = "Progressing", message = ready.message }
