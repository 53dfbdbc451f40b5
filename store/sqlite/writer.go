package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"sync/atomic"
)

// maxGroup bounds how many changes share a transaction, and with that how long the first of them waits.
const maxGroup = 256

// change is something that one caller wants written.
type change struct {
	ctx  context.Context
	run  func(*writer) error
	took atomic.Bool   // by the writer, or by its caller, who has given up; whoever is first decides
	err  error         // to be read when done is closed
	done chan struct{} // closed when it is on the disk, or certainly is not
}

// write carries out run in a transaction and returns when that is on the disk. Nothing has changed when it returns an
// error. If ctx is done before run begins then run never does; once it has begun, write waits for what becomes of it.
func (s *Store) write(ctx context.Context, run func(*writer) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	c := &change{ctx: ctx, run: run, done: make(chan struct{})}
	select {
	case s.changes <- c:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.took.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		<-c.done
	}
	return c.err
}

// writer is the one connection that writes, and what it says. Only the writing goroutine uses it.
type writer struct {
	conn *sql.Conn

	begin, commit, rollback         *sql.Stmt
	savepoint, release, backToSaved *sql.Stmt

	barred, insertSession, updateSession, renameSession, sessionLives *sql.Stmt
	insertJTI, insertMark, jtiKnown                                   *sql.Stmt
	endKey, endSID, endSubject, endBoth, endOldest                    *sql.Stmt
	pruneSessions, pruneMarks, pruneJTIs                              *sql.Stmt
	insertNotice, claim, retry, drop                                  *sql.Stmt
	saveFirst, save                                                   *sql.Stmt
	claimAttempt, settleAttempt, attempt, pruneAttempts               *sql.Stmt
	completeDone, completeRetry, completeGiveUp                       *sql.Stmt
}

// statement is a statement to be prepared.
type statement struct {
	to  **sql.Stmt
	sql string
}

func (w *writer) statements() []statement {
	return []statement{
		{&w.begin, `BEGIN IMMEDIATE`},
		{&w.commit, `COMMIT`},
		{&w.rollback, `ROLLBACK`},
		{&w.savepoint, `SAVEPOINT change`},
		{&w.release, `RELEASE change`},
		{&w.backToSaved, `ROLLBACK TO change`},
		{&w.barred, barredSQL},
		{&w.insertSession, insertSessionSQL},
		{&w.updateSession, updateSessionSQL},
		{&w.renameSession, renameSessionSQL},
		{&w.sessionLives, sessionLivesSQL},
		{&w.insertJTI, insertJTISQL},
		{&w.insertMark, insertMarkSQL},
		{&w.jtiKnown, jtiKnownSQL},
		{&w.endKey, endSQLOf(namedKeySQL)},
		{&w.endSID, endSQLOf(namedSIDSQL)},
		{&w.endSubject, endSQLOf(namedSubjectSQL)},
		{&w.endBoth, endSQLOf(namedBothSQL)},
		{&w.endOldest, endSQLOf(spareSQL)},
		{&w.pruneSessions, pruneSessionsSQL},
		{&w.pruneMarks, pruneMarksSQL},
		{&w.pruneJTIs, pruneJTIsSQL},
		{&w.insertNotice, insertNoticeSQL},
		{&w.claim, claimSQL},
		{&w.retry, retrySQL},
		{&w.drop, dropSQL},
		{&w.saveFirst, saveFirstSQL},
		{&w.save, saveSQL},
		{&w.claimAttempt, claimAttemptSQL},
		{&w.settleAttempt, completeAttemptSQL},
		{&w.attempt, attemptSQL},
		{&w.pruneAttempts, pruneAttemptsSQL},
		{&w.completeDone, completeDoneSQL},
		{&w.completeRetry, completeRetrySQL},
		{&w.completeGiveUp, completeGiveUpSQL},
	}
}

// exec runs a statement without a deadline: what has begun is finished, so that its outcome is known.
func exec(s *sql.Stmt, args ...any) (sql.Result, error) {
	return s.ExecContext(context.Background(), args...)
}

// run carries out changes until there are no more.
func (w *writer) run(changes <-chan *change) {
	group := make([]*change, 0, maxGroup)
	for first := range changes {
		group = append(group[:0], first)
		// Those whom the last group answered are just about to hand in their next change: let them. With 16 callers
		// this makes groups of 13 out of groups of 8.
		runtime.Gosched()
	gather:
		for len(group) < maxGroup {
			select {
			case c, more := <-changes:
				if !more {
					break gather
				}
				group = append(group, c)
			default:
				break gather
			}
		}
		w.carryOut(group)
		clear(group)
	}
}

// carryOut writes a group of changes in one transaction, and answers each when it is on the disk. A change that fails
// is undone by itself; if the transaction fails they all have failed, whatever they thought before.
func (w *writer) carryOut(group []*change) {
	err := w.transaction(group)
	for _, c := range group {
		if err != nil {
			c.err = fmt.Errorf("sqlite: %w", err)
		}
		close(c.done)
	}
}

func (w *writer) transaction(group []*change) error {
	if _, err := exec(w.begin); err != nil {
		exec(w.rollback) // in case an earlier one is still open because its own rollback failed
		return err
	}
	for _, c := range group {
		if !c.took.CompareAndSwap(false, true) {
			continue // its caller has given up and has been told that nothing changed
		}
		if c.err = c.ctx.Err(); c.err != nil {
			continue
		}
		if err := w.step(c); err != nil {
			exec(w.rollback)
			return err
		}
	}
	if _, err := exec(w.commit); err != nil {
		exec(w.rollback)
		return err
	}
	return nil
}

// step runs one change in a savepoint. Its error is of the transaction; that of the change is in c.err.
func (w *writer) step(c *change) error {
	if _, err := exec(w.savepoint); err != nil {
		return err
	}
	if c.err = c.run(w); c.err != nil {
		// This fails when SQLite has rolled back everything (a full disk can do that): then the changes before
		// this one are lost as well, and must hear of it.
		if _, err := exec(w.backToSaved); err != nil {
			return fmt.Errorf("%w (after: %w)", err, c.err)
		}
	}
	_, err := exec(w.release)
	return err
}
