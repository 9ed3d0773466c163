package store

import (
	"context"
	"errors"
	"time"
)

type Store struct{}

var errStub = errors.New("not written yet")

func Open(ctx context.Context, path string) (*Store, error)   { return nil, errStub }
func Create(ctx context.Context, path string) (*Store, error) { return nil, errStub }
func (s *Store) Close() error                                 { return nil }
func (s *Store) Apply(ctx context.Context, actor string, writes []Write) (uint64, error) {
	return 0, errStub
}
func (s *Store) Objects(ctx context.Context) ([]Object, uint64, error)       { return nil, 0, errStub }
func (s *Store) Changes(ctx context.Context, after uint64) ([]Change, error) { return nil, errStub }
func (s *Store) Wait(ctx context.Context, after uint64) (uint64, error)      { return 0, errStub }
func (s *Store) PutToken(ctx context.Context, hash []byte, group string, expires time.Time) error {
	return errStub
}
func (s *Store) UseToken(ctx context.Context, hash []byte, now time.Time) (string, error) {
	return "", errStub
}
func (s *Store) PutAgent(ctx context.Context, a Agent) error { return errStub }
func (s *Store) AgentByKey(ctx context.Context, hostKey []byte) (Agent, error) {
	return Agent{}, errStub
}
func (s *Store) Agents(ctx context.Context) ([]Agent, error)                   { return nil, errStub }
func (s *Store) BanAgent(ctx context.Context, actor, id string) error          { return errStub }
func (s *Store) PutRevision(ctx context.Context, r PolicyRow) error            { return errStub }
func (s *Store) LastRevision(ctx context.Context) (PolicyRow, error)           { return PolicyRow{}, errStub }
func (s *Store) Audit(ctx context.Context, actor, action, detail string) error { return errStub }
func (s *Store) AuditTrail(ctx context.Context, after uint64, n int) ([]AuditRow, error) {
	return nil, errStub
}
