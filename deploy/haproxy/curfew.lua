-- Asks Curfew about a request. Lets it through with the identity in headers, or returns Curfew's answer.
--
--   lua-load-per-thread /etc/haproxy/curfew.lua
--   http-request lua.curfew http://127.0.0.1:4180
--
-- It uses the HTTP client that HAProxy has had since 2.5, and nothing else. After any error, nobody gets in.

-- The headers that Curfew uses. HAProxy has names in lower case.
local asked = { "cookie", "accept", "authorization", "sec-fetch-mode", "sec-fetch-site", "sec-purpose", "purpose", "origin", "referer",
	"x-requested-with", "x-request-id", "user-agent",
	"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "host",
	"x-http-method-override", "x-http-method", "x-method-override" }
-- The headers of a refusal that the client may see.
local told = { "location", "content-type", "cache-control", "retry-after", "www-authenticate", "set-cookie",
	"content-security-policy", "x-content-type-options", "referrer-policy", "x-frame-options", "vary" }

-- The identity headers of Curfew's answer: names that begin with x-auth-, and these.
local identity = { ["x-forwarded-user"] = true, ["x-forwarded-email"] = true, ["x-forwarded-groups"] = true,
	["x-forwarded-preferred-username"] = true }

-- The app sees none of Curfew's cookies.
local function hide(txn)
	local kept = {}
	for _, line in pairs(txn.http:req_get_headers()["cookie"] or {}) do
		for cookie in line:gmatch("[^;]+") do
			local name = cookie:match("^%s*([^=]*)"):gsub("^__Host%-", ""):gsub("^__Secure%-", "")
			if name ~= "curfew" and name:sub(1, 7) ~= "curfew-" then
				table.insert(kept, (cookie:gsub("^%s+", "")))
			end
		end
	end
	txn.http:req_del_header("cookie")
	if #kept > 0 then
		txn.http:req_add_header("cookie", table.concat(kept, "; "))
	end
end

local function answer(txn, status, headers, body)
	local reply = txn:reply()
	reply:set_status(status)
	for _, name in ipairs(told) do
		for _, value in pairs(headers[name] or {}) do
			reply:add_header(name, value)
		end
	end
	if txn.sf:method() ~= "HEAD" then
		reply:set_body(body)
	end
	txn:done(reply)
end

core.register_action("curfew", { "http-req" }, function(txn, curfew)
	local from = txn.http:req_get_headers()
	local headers = {
		["x-forwarded-method"] = { txn.sf:method() },
		["x-forwarded-uri"] = { txn.sf:pathq() },
	}
	for _, name in ipairs(asked) do
		for _, value in pairs(from[name] or {}) do
			headers[name] = headers[name] or {}
			table.insert(headers[name], value)
		end
	end

	local said = core.httpclient():get({ url = curfew .. "/auth/verify?redirect=true", headers = headers, timeout = 5000 })
	local status = said and said.status or 0
	local replied = said and said.headers or {}
	if status == 200 then
		hide(txn)
		for name, values in pairs(replied) do
			if name:sub(1, 7) == "x-auth-" or identity[name] then
				txn.http:req_del_header(name)
				for _, value in pairs(values) do
					txn.http:req_add_header(name, value)
				end
			end
		end
	elseif status >= 300 and status < 600 then
		answer(txn, status, replied, said.body or "")
	else
		answer(txn, 503, { ["retry-after"] = { "2" }, ["cache-control"] = { "no-store" } }, "")
	end
end, 1)
