package redirect

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// ErrNotAllowed is wrapped where the kernel lets this process neither read nor change rules.
var ErrNotAllowed = errors.New("rules of the network are read and changed by whoever has CAP_NET_ADMIN in this network namespace alone")

// table is ours, as the kernel knows it.
func table() *nftables.Table { return &nftables.Table{Family: nftables.TableFamilyINet, Name: Table} }

// buffers is what the kernel may be sent in one step, and may answer: with what it gives by itself
// some 100 rules fail. Whoever has CAP_NET_ADMIN may have more.
const buffers = 4 << 20

func connect() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(buffers), c.SetReadBuffer(buffers))
	}))
}

// Up makes the table what r says, whatever it was before. There is no moment at which it is
// neither. Connections that are there already go on as they are.
func Up(r Rules) error {
	if err := r.Validate(); err != nil {
		return err
	}
	c, err := connect()
	if err != nil {
		return fmt.Errorf("nftables: %w", explained(err))
	}
	c.AddTable(table()) // so that there is one to delete
	c.DelTable(table())
	t := c.AddTable(table())
	for _, want := range r.chains() {
		in := c.AddChain(want.in(t))
		for _, rule := range want.rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: in, Exprs: rule.exprs})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: add table inet %s: %w", Table, explained(err))
	}
	return nil
}

// Down removes the table, and reports whether it was there.
func Down() (was bool, err error) {
	c, err := connect()
	if err != nil {
		return false, fmt.Errorf("nftables: %w", explained(err))
	}
	if was, err = exists(c); err != nil || !was {
		return false, err
	}
	c.DelTable(table())
	if err := c.Flush(); err != nil {
		return false, fmt.Errorf("nftables: delete table inet %s: %w", Table, explained(err))
	}
	return true, nil
}

// Check returns how the table is another than r says, a line for each; none where it is as it
// should be.
func Check(r Rules) ([]string, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	c, err := connect()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", explained(err))
	}
	switch there, err := exists(c); {
	case err != nil:
		return nil, err
	case !there:
		return []string{fmt.Sprintf("there is no table inet %s: nothing is redirected", Table)}, nil
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("nftables: list chains: %w", explained(err))
	}
	chains = slices.DeleteFunc(chains, func(c *nftables.Chain) bool { return c.Table.Name != Table })
	var found []string
	for _, want := range r.chains() {
		i := slices.IndexFunc(chains, func(c *nftables.Chain) bool { return c.Name == want.name })
		if i < 0 {
			found = append(found, "chain "+want.name+" is missing")
			continue
		}
		has := chains[i]
		chains = slices.Delete(chains, i, i+1)
		rules, err := c.GetRules(table(), has)
		if err != nil {
			return nil, fmt.Errorf("nftables: list rules of %s: %w", has.Name, explained(err))
		}
		found = append(found, want.differences(has, rules)...)
	}
	for _, c := range chains {
		found = append(found, "chain "+c.Name+" is there, and not wanted")
	}
	return found, nil
}

func exists(c *nftables.Conn) (bool, error) {
	all, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("nftables: list tables: %w", explained(err))
	}
	return slices.ContainsFunc(all, func(t *nftables.Table) bool { return t.Name == Table }), nil
}

func (c chain) in(t *nftables.Table) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return &nftables.Chain{Table: t, Name: c.name, Type: nftables.ChainTypeNAT, Hooknum: c.hook, Priority: c.priority, Policy: &accept}
}

// differences are how a chain of the kernel's is another than this one.
func (c chain) differences(has *nftables.Chain, rules []*nftables.Rule) []string {
	var found []string
	if has.Type != nftables.ChainTypeNAT || has.Hooknum == nil || *has.Hooknum != *c.hook || has.Priority == nil || *has.Priority != *c.priority {
		found = append(found, fmt.Sprintf("chain %s is not at its hook", c.name))
	}
	for i, want := range c.rules {
		switch {
		case i >= len(rules):
			found = append(found, fmt.Sprintf("chain %s: rule %d is missing: %s", c.name, i+1, want.text))
		case !want.is(rules[i].Exprs):
			found = append(found, fmt.Sprintf("chain %s: rule %d is another than: %s", c.name, i+1, want.text))
		}
	}
	if more := len(rules) - len(c.rules); more > 0 {
		found = append(found, fmt.Sprintf("chain %s has %d more at its end", c.name, more))
	}
	return found
}

// is reports whether these are the same expressions.
func (s statement) is(exprs []expr.Any) bool {
	return slices.EqualFunc(s.exprs, exprs, func(a, b expr.Any) bool {
		x, err1 := expr.Marshal(byte(nftables.TableFamilyINet), a)
		y, err2 := expr.Marshal(byte(nftables.TableFamilyINet), b)
		return err1 == nil && err2 == nil && bytes.Equal(x, y)
	})
}

func explained(err error) error {
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("%w (%w)", ErrNotAllowed, err)
	}
	return err
}
