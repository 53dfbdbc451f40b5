package postgres

import (
	"context"
	"time"

	"example.com/curfew/store"
)

// CreateStatement and EndStatement are what Create and End send, for tests that send it over a connection of their own.
func CreateStatement(r store.Record, began time.Time) (string, []any) {
	return createSQL, createArgs(r, began)
}

// RenameStatement renames r, which has been there since now.
func RenameStatement(r store.Record, now time.Time) (string, []any) {
	return renameSQL, renameArgs(r, now, now)
}

func EndStatement(e store.Ending, now time.Time) (string, []any) {
	args, err := endArgs(e, now)
	if err != nil {
		panic(err)
	}
	return endSQL, args
}

// ClaimStatement claims up to ten notices for a target.
func ClaimStatement(target string) (string, []any) {
	return claimSQL, []any{"x", 1 << 40, 1 << 30, 10, string(store.NoticeLogout), target}
}

// ListStatement is what List sends.
var ListStatement = listStatement

// Planning are the settings of each connection that does not lead to a pooler.
var Planning = planning

// FeedPID is the server's process behind the connection that follows what ends.
func (s *Store) FeedPID(ctx context.Context) (pid uint32, err error) {
	_, err = s.feed.request(ctx, func(int64) error { pid = s.feed.pid; return nil })
	return pid, err
}

// SchemaLock is held while the schema is looked at.
const SchemaLock = schemaLock

// FillPool makes all connections that the pool may hold.
func (s *Store) FillPool(ctx context.Context) error {
	for range s.pool.Config().MaxConns {
		conn, err := s.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
	}
	return nil
}

// Statements are all that the store sends, the functions apart, with arguments for each.
func Statements() map[string][]any {
	return map[string][]any{
		findSQL:            {make([]byte, 32), 1},
		updateSQL:          {1, 1, 1, 1, []byte{}, make([]byte, 32), 1, 1},
		livesSQL:           {make([]byte, 32), 1},
		listSQL:            {make([]byte, 32), 1, 10, "https://id.example", ""},
		listSubjectSQL():   {make([]byte, 32), 1, 10, 1, "https://id.example", "app", "user1", ""},
		listSIDSQL():       {make([]byte, 32), 1, 10, 1, "https://id.example", "app", "", "s1"},
		pruneSQL:           {1, 1},
		claimSQL:           {"x", 1, 1, 1, "logout", "t"},
		completeDoneSQL:    {1, "x"},
		completeRetrySQL:   {1, "x", true, "", 1},
		completeGiveUpSQL:  {1, "x", true, ""},
		readSQL:            {"19990:19995:19991"},
		noticesSQL:         {1, 10, "", "t", nil, 1 << 40},
		retrySQL:           {1, 1, 1},
		dropSQL:            {1},
		statsSQL:           {},
		overdueSQL:         {1, make([]byte, 32), 10},
		loadSQL:            {"keys"},
		completeAttemptSQL: {make([]byte, 32), []byte{1}, 1},
		attemptSQL:         {make([]byte, 32), 1},
		saveSQL:            {"keys", []byte{}, 1},
		trimSQL:            {10000},
		entriesAfterSQL:    {1, 10},
		entriesBeforeSQL:   {1 << 40, 10},
		forgetSQL:          {[]int64{1}, 1},
	}
}

// Hashes are what the look-ups of a subject and a sid go by.
func Hashes(r store.Record) (subject, sid int64) {
	return subjectHash(r.Issuer, r.ClientID, r.Subject), *sidHash(r.Issuer, r.ClientID, r.SID)
}

// Doubtful says whether a notice casts doubt on a change.
var Doubtful = doubtful

// RowColumns and Row are a row of the table of sessions, to be copied into it.
func RowColumns() []string {
	return []string{"key", "issuer", "client", "subject", "sid", "subject_hash", "sid_hash", "created", "last_seen",
		"idle_expires", "expires", "revision", "refresh", "payload"}
}

func Row(r store.Record) []any {
	return []any{r.Key[:], r.Issuer, r.ClientID, r.Subject, r.SID, subjectHash(r.Issuer, r.ClientID, r.Subject),
		*sidHash(r.Issuer, r.ClientID, r.SID), store.Micros(r.Created), store.Micros(r.LastSeen),
		store.Micros(r.IdleExpires), store.Micros(r.Expires), int64(1), int16(r.Refresh), r.Payload}
}
