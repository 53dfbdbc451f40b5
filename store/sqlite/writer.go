package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"example.com/curfew/store"
)

// maxGroup is how many changes share a transaction at most. It bounds how long the first of them waits.
const maxGroup = 256

// change is what one call wants to write.
type change struct {
	ctx     context.Context
	run     func(*writer) error // it may be called twice: see carryOut
	then    func()              // may be nil: see writeThen
	decided atomic.Bool         // by the writer, which then runs it, or by the caller, which then gives up
	err     error               // valid when done is closed
	done    chan struct{}       // closed when the change is on the disk, or has certainly failed
}

// write calls run in a transaction and returns when the transaction is on the disk. After an error nothing has changed.
// Run may be called a second time, after what it did has been undone; an error of the contract means that it has
// written nothing.
// If ctx is done before run begins, run is not called; once run has begun, write waits for the result. what says in
// errors what failed.
func (s *Store) write(ctx context.Context, what string, run func(*writer) error) error {
	return s.writeThen(ctx, what, nil, run)
}

// writeThen is write that calls then when the transaction is on the disk, before any call that can have seen the change
// returns: one that finds a session gone may answer that nobody serves it, so the news of it is not behind.
func (s *Store) writeThen(ctx context.Context, what string, then func(), run func(*writer) error) error {
	if err := s.gate.Enter(ctx); err != nil {
		return err
	}
	defer s.gate.Leave()
	c := &change{ctx: ctx, run: run, then: then, done: make(chan struct{})}
	select {
	case s.changes <- c:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.decided.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		<-c.done
	}
	return failed(what, c.err)
}

// failed adds what failed to an error that is none of the contract.
func failed(what string, err error) error {
	if err == nil || store.IsContractError(err) {
		return err
	}
	return fmt.Errorf("sqlite: %s: %w", what, err)
}

// writer is the only connection that writes, with its statements. Only the writing goroutine uses it.
type writer struct {
	conn *sql.Conn

	begin, commit, rollback        *sql.Stmt
	savepoint, release, rollbackTo *sql.Stmt

	barred, insertSession, updateSession, renameSession, sessionLives *sql.Stmt
	insertJTI, insertMark, forgetJTI                                  *sql.Stmt
	endKey, endSID, endSubject, endBoth, endSpare                     *sql.Stmt
	pruneSessions, pruneMarks, pruneJTIs                              *sql.Stmt
	insertNotice, claim, retry, drop                                  *sql.Stmt
	saveFirst, save                                                   *sql.Stmt
	claimAttempt, completeAttempt, attempt, pruneAttempts             *sql.Stmt
	completeDone, completeRetry, completeGiveUp                       *sql.Stmt
	appendEntry, trimJournal, forget, forgetOld                       *sql.Stmt
}

// statement is a statement to be prepared, and where to put it.
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
		{&w.rollbackTo, `ROLLBACK TO change`},
		{&w.barred, barredSQL},
		{&w.insertSession, insertSessionSQL},
		{&w.updateSession, updateSessionSQL},
		{&w.renameSession, renameSessionSQL},
		{&w.sessionLives, sessionLivesSQL},
		{&w.insertJTI, insertJTISQL},
		{&w.insertMark, insertMarkSQL},
		{&w.forgetJTI, forgetJTISQL},
		{&w.endKey, endSQLOf(namedKeySQL)},
		{&w.endSID, endSQLOf(namedSIDSQL)},
		{&w.endSubject, endSQLOf(namedSubjectSQL)},
		{&w.endBoth, endSQLOf(namedBothSQL)},
		{&w.endSpare, endSQLOf(spareSQL)},
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
		{&w.completeAttempt, completeAttemptSQL},
		{&w.attempt, attemptSQL},
		{&w.pruneAttempts, pruneAttemptsSQL},
		{&w.completeDone, completeDoneSQL},
		{&w.completeRetry, completeRetrySQL},
		{&w.completeGiveUp, completeGiveUpSQL},
		{&w.appendEntry, appendSQL},
		{&w.trimJournal, trimSQL},
		{&w.forget, forgetSQL},
		{&w.forgetOld, forgetOldSQL},
	}
}

// exec runs a statement without a deadline, so that the outcome is always known. It returns how many rows were changed.
func exec(s *sql.Stmt, args ...any) (int64, error) {
	result, err := s.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// oneRow runs a statement that changes a row, and returns none when there is no such row.
func oneRow(none error, st *sql.Stmt, args ...any) error {
	n, err := exec(st, args...)
	if err == nil && n == 0 {
		return none
	}
	return err
}

// run carries out changes until the channel is closed.
func (w *writer) run(changes <-chan *change) {
	group := make([]*change, 0, maxGroup)
	for first := range changes {
		group = append(group[:0], first)
		// Let the callers whose changes were in the last group run, since they may be about to send their next change.
		// With 16 callers this makes groups of 13 instead of 8.
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

// carryOut writes a group of changes in one transaction, and closes done of each when it is on the disk. A change that
// fails is undone alone; if the transaction fails, all of them have failed.
//
// A change that returns an error of the contract has written nothing, so there is nothing to undo. Any other error is
// rare. Only then everything is undone and done again with a savepoint around each change, which costs two statements
// and a copy of each page that the change writes.
func (w *writer) carryOut(group []*change) {
	decided := group[:0]
	for _, c := range group {
		if c.decided.CompareAndSwap(false, true) { // else its caller has given up and returned an error
			decided = append(decided, c)
		}
	}
	err := w.transaction(decided, func(c *change) error {
		if c.err = c.run(w); c.err != nil && !store.IsContractError(c.err) && c.err != errExists {
			return errUndo
		}
		return nil
	})
	if err == errUndo {
		err = w.transaction(decided, w.step)
	}
	for _, c := range decided {
		if err != nil {
			c.err = err
		}
		if c.err == nil && c.then != nil {
			c.then()
		}
	}
	for _, c := range decided {
		close(c.done)
	}
}

var errUndo = errors.New("undo the transaction, and carry each change out in a savepoint")

// transaction carries out changes with step, in one transaction. It returns an error of the transaction; that of a
// change is in its err.
func (w *writer) transaction(group []*change, step func(*change) error) error {
	if _, err := exec(w.begin); err != nil {
		exec(w.rollback) // in case an earlier one is still open because its own rollback failed
		return err
	}
	for _, c := range group {
		if c.err = c.ctx.Err(); c.err != nil {
			continue
		}
		if err := step(c); err != nil {
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

// step runs one change in a savepoint. It returns an error of the transaction; an error of the change is in c.err.
func (w *writer) step(c *change) error {
	if _, err := exec(w.savepoint); err != nil {
		return err
	}
	if c.err = c.run(w); c.err != nil {
		// This fails when SQLite has rolled back everything, as with a full disk. Then the changes before this one are
		// lost too, and must report the error.
		if _, err := exec(w.rollbackTo); err != nil {
			return fmt.Errorf("%w (after: %w)", err, c.err)
		}
	}
	_, err := exec(w.release)
	return err
}
