package redis

import (
	"cmp"
	"context"
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"example.com/curfew/internal/wait"
	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

//go:embed lua/*.lua
var luaFiles embed.FS

// script is a Lua script, called by its digest.
type script struct{ name, text, sha string }

type scripts struct {
	create, point, update, rename               *script
	end, sid, begin, confirm, release           *script
	bind, prune                                 *script
	due, claim, complete, enqueue, retry, drop  *script
	wake, reschedule, stats, ids, save, attempt *script
	append, forget                              *script
}

func loadScripts() (*scripts, error) {
	shared, err := luaFiles.ReadFile("lua/shared.lua")
	if err != nil {
		return nil, err
	}
	queue, err := luaFiles.ReadFile("lua/queue.lua")
	if err != nil {
		return nil, err
	}
	all := new(scripts)
	for name, to := range map[string]**script{
		"create": &all.create, "point": &all.point, "update": &all.update, "rename": &all.rename,
		"end": &all.end, "sid": &all.sid, "begin": &all.begin, "confirm": &all.confirm, "release": &all.release,
		"bind": &all.bind, "prune": &all.prune, "due": &all.due, "claim": &all.claim, "complete": &all.complete,
		"enqueue": &all.enqueue, "retry": &all.retry, "drop": &all.drop, "wake": &all.wake,
		"reschedule": &all.reschedule, "stats": &all.stats, "ids": &all.ids, "save": &all.save, "attempt": &all.attempt,
		"append": &all.append, "forget": &all.forget,
	} {
		text, err := luaFiles.ReadFile("lua/" + name + ".lua")
		if err != nil {
			return nil, err
		}
		sc := &script{name: name, text: string(shared) + string(text)}
		switch name {
		case "sid":
			end, err := luaFiles.ReadFile("lua/end.lua")
			if err != nil {
				return nil, err
			}
			sc.text = fmt.Sprintf("%s%slocal did, spread = {}, '%s'\n%s%s", shared, queue, spread, text, end)
		case "end":
			sc.text = fmt.Sprintf("%s%slocal did = {}\n%s", shared, queue, text)
		case "due", "claim", "complete", "enqueue", "retry", "drop", "wake", "stats": // about notices
			sc.text = string(shared) + string(queue) + string(text)
		}
		sum := sha1.Sum([]byte(sc.text)) // how Redis names scripts
		sc.sha = hex.EncodeToString(sum[:])
		*to = sc
	}
	return all, nil
}

// call is a script and its arguments.
type call struct {
	script *script
	keys   []string
	args   []string
}

func (c call) byDigest(b rueidis.Builder) rueidis.Completed {
	return b.Evalsha().Sha1(c.script.sha).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build()
}

func (c call) byText(b rueidis.Builder) rueidis.Completed {
	return b.Eval().Script(c.script.text).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build()
}

// run calls a script. While there is time it tries again after an error that says that the script did not run: the
// server may be starting, or the Cluster electing a master or moving the slot.
func (s *Store) run(ctx context.Context, c call) (rueidis.RedisMessage, error) {
	results, err := s.runAll(ctx, []call{c})
	if err != nil {
		return rueidis.RedisMessage{}, err
	}
	return results[0], nil
}

// runAll calls scripts concurrently, in no particular order. It fails if one of them does.
func (s *Store) runAll(ctx context.Context, calls []call) ([]rueidis.RedisMessage, error) {
	answers, faults := s.runEach(ctx, calls)
	for _, err := range faults {
		if err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// runEach is runAll for calls that do not depend on one another: for each call it returns the answer or the error.
func (s *Store) runEach(ctx context.Context, calls []call) ([]rueidis.RedisMessage, []error) {
	answers, faults := make([]rueidis.RedisMessage, len(calls)), make([]error, len(calls))
	todo := make([]int, len(calls))
	for i := range todo {
		todo[i] = i
	}
	for text := false; len(todo) > 0; text = true {
		commands := make([]rueidis.Completed, len(todo))
		for i, at := range todo {
			if text {
				commands[i] = calls[at].byText(s.client.B())
			} else {
				commands[i] = calls[at].byDigest(s.client.B())
			}
		}
		var again []int
		var pause time.Duration
		for i, result := range s.do(ctx, commands) {
			at := todo[i]
			answer, err := result.ToMessage()
			switch {
			case err == nil || rueidis.IsRedisNil(err):
				answers[at], faults[at] = answer, nil
			case unknownScript(err) && !text:
				again = append(again, at)
			case didNotRun(err):
				again, pause, faults[at] = append(again, at), 20*time.Millisecond, err
			default:
				faults[at] = fmt.Errorf("redis: %s: %w", calls[at].script.name, err)
			}
		}
		if todo = again; len(todo) == 0 {
			break
		}
		if !wait.Sleep(ctx, pause) {
			for _, at := range todo {
				faults[at] = fmt.Errorf("redis: %s: %w", calls[at].script.name, errors.Join(ctx.Err(), faults[at]))
			}
			break
		}
	}
	return answers, faults
}

// do sends commands, and returns their results in the same order.
func (s *Store) do(ctx context.Context, commands []rueidis.Completed) []rueidis.RedisResult {
	if len(commands) == 1 {
		return []rueidis.RedisResult{s.client.Do(ctx, commands[0])}
	}
	return s.client.DoMulti(ctx, commands...)
}

func unknownScript(err error) bool {
	refused, ok := rueidis.IsRedisErr(err)
	return ok && refused.IsNoScript()
}

// didNotRun reports whether the server says for certain that nothing was done.
func didNotRun(err error) bool {
	refused, ok := rueidis.IsRedisErr(err)
	return ok && (refused.IsTryAgain() || refused.IsClusterDown() || refused.IsLoading())
}

var errAnswer = errors.New("redis: the server's answer does not have the expected form")

// verdicts are the errors that words in answers stand for.
var verdicts = map[string]error{
	"not found": store.ErrNotFound, "ended": store.ErrEnded, "conflict": store.ErrConflict,
	"replayed": store.ErrReplayed, "lost": store.ErrLeaseLost, "no notice": store.ErrNoNotice,
	"exists": errExists, "busy": errBusy, "steps": errSteps,
}

// text reads an answer that is a string.
func text(m rueidis.RedisMessage) (string, error) {
	s, err := m.ToString()
	if err != nil {
		return "", errors.Join(errAnswer, err)
	}
	return s, nil
}

// verdict reads an answer that is one word, or the error that the word stands for.
func verdict(m rueidis.RedisMessage) (string, error) {
	w, err := text(m)
	return w, cmp.Or(err, verdicts[w])
}

// list reads an answer that is a list, and returns its first member, which is a word, and the rest.
func list(m rueidis.RedisMessage) (first string, rest []rueidis.RedisMessage, err error) {
	all, err := m.ToArray()
	if err != nil || len(all) == 0 {
		return "", nil, errors.Join(errAnswer, err)
	}
	first, err = verdict(all[0])
	return first, all[1:], err
}
