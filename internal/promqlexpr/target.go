// SPDX-License-Identifier: Apache-2.0

package promqlexpr

import (
	"fmt"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// The labels of a target's identity.
var identity = []string{model.JobLabel, model.InstanceLabel}

// PerTarget parses an expression that is asked for many targets at once and must tell a number of each, from the series of
// that target alone. So job and instance are added to what it groups and matches by, and an expression that loses them is refused,
// as is one that mixes targets or tells the past.
func PerTarget(expression string) (Expr, error) {
	root, err := promql.ParseExpr(expression)
	if err != nil {
		return Expr{}, fmt.Errorf("expression %s: %w", expression, err)
	}
	if root.Type() != parser.ValueTypeVector {
		return Expr{}, fmt.Errorf("expression %s: it is a %s: write one that is an instant vector, a sample of each target", expression, parser.DocumentedType(root.Type()))
	}
	if err := identified(root); err != nil {
		return Expr{}, fmt.Errorf("expression %s: %w", expression, err)
	}
	return Parse(Expr{expression}.With(nil, identity))
}

// identified returns an error that says where e loses what its samples' targets are. Groupings are taken as if they had
// the labels that With adds.
func identified(e parser.Expr) error {
	switch n := e.(type) {
	case *parser.VectorSelector:
		if n.Timestamp != nil {
			return fmt.Errorf("%s tells the past, whenever it is asked: leave out @", n)
		}
		return nil
	case *parser.MatrixSelector:
		return identified(n.VectorSelector)
	case *parser.SubqueryExpr:
		if n.Timestamp != nil {
			return fmt.Errorf("%s tells the past, whenever it is asked: leave out @", n)
		}
		return identified(n.Expr)
	case *parser.ParenExpr:
		return identified(n.Expr)
	case *parser.UnaryExpr:
		return identified(n.Expr)
	case *parser.StepInvariantExpr:
		return identified(n.Expr)
	case *parser.AggregateExpr:
		return identifiedAggregation(n)
	case *parser.Call:
		return identifiedCall(n)
	case *parser.BinaryExpr:
		return identifiedBinary(n)
	default:
		return fmt.Errorf("%s has no labels job and instance", e)
	}
}

func identifiedAggregation(n *parser.AggregateExpr) error {
	if n.Without {
		for _, l := range identity {
			if slices.Contains(n.Grouping, l) {
				return fmt.Errorf("without (%s) adds up over targets: keep job and instance", l)
			}
		}
	}
	if label, ok := literal(n.Param); ok && slices.Contains(identity, label) {
		return fmt.Errorf("%s overwrites the label %s: name another", n.Op, label)
	}
	if n.Param != nil && n.Param.Type() == parser.ValueTypeScalar {
		if err := constant(n.Param); err != nil {
			return err
		}
	}
	return identified(n.Expr)
}

func identifiedCall(n *parser.Call) error {
	switch n.Func.Name {
	case "absent", "absent_over_time", "vector":
		return fmt.Errorf("%s has no labels job and instance: what is absent stays absent", n)
	case "label_replace", "label_join":
		if label, _ := literal(n.Args[1]); slices.Contains(identity, label) {
			return fmt.Errorf("%s overwrites the label %s: name another", n.Func.Name, label)
		}
	}
	found := false
	for _, arg := range n.Args {
		switch arg.Type() {
		case parser.ValueTypeVector, parser.ValueTypeMatrix:
			found = true
			if err := identified(arg); err != nil {
				return err
			}
		case parser.ValueTypeScalar:
			if err := constant(arg); err != nil {
				return err
			}
		}
	}
	if !found {
		return fmt.Errorf("%s has no labels job and instance", n)
	}
	return nil
}

func identifiedBinary(n *parser.BinaryExpr) error {
	if m := n.VectorMatching; m != nil && !m.On {
		for _, l := range identity {
			if slices.Contains(m.MatchingLabels, l) {
				return fmt.Errorf("ignoring (%s) mixes targets: keep job and instance", l)
			}
		}
	}
	for _, side := range []parser.Expr{n.LHS, n.RHS} {
		check := identified
		if side.Type() == parser.ValueTypeScalar {
			check = constant
		}
		if err := check(side); err != nil {
			return err
		}
	}
	return nil
}

// constant returns an error if the scalar e is taken from series, which are those of many targets.
func constant(e parser.Expr) error {
	var err error
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		if s, ok := node.(*parser.VectorSelector); ok && err == nil {
			err = fmt.Errorf("%s makes one number of many targets' %s: match by labels in place of scalar()", e, s)
		}
		return nil
	})
	return err
}

func literal(e parser.Expr) (string, bool) {
	for {
		paren, ok := e.(*parser.ParenExpr)
		if !ok {
			break
		}
		e = paren.Expr
	}
	s, ok := e.(*parser.StringLiteral)
	if !ok {
		return "", false
	}
	return s.Val, true
}
