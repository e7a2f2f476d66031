// SPDX-License-Identifier: Apache-2.0

package promqlexpr

import (
	"fmt"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// targetLabels are the labels that identify a target.
var targetLabels = []string{model.JobLabel, model.InstanceLabel}

// PerTarget parses an expression that yields one number per target and is evaluated for many
// targets at once. The number of a target must depend on the series of that target alone.
//
// To make sure of that, job and instance are added to every `by` and `on` clause: sum(a) becomes
// sum by (job, instance) (a). PerTarget rejects an expression whose samples still lack these
// labels, one that combines series of different targets, and one that is fixed to a point in the
// past.
func PerTarget(text string) (Expr, error) {
	root, err := promql.ParseExpr(text)
	if err != nil {
		return Expr{}, fmt.Errorf("expression %s: %w", text, err)
	}

	if root.Type() != parser.ValueTypeVector {
		return Expr{}, fmt.Errorf("expression %s: it is a %s: write an expression that is an instant vector, "+
			"with one sample per target", text, parser.DocumentedType(root.Type()))
	}
	if err := checkTargetLabels(root); err != nil {
		return Expr{}, fmt.Errorf("expression %s: %w", text, err)
	}

	// The added labels can make an expression invalid: on (type) group_left (job) must not become
	// on (type, job, instance) group_left (job).
	return Parse(Expr{text}.WithGrouping(targetLabels).text)
}

// checkTargetLabels returns an error if the samples of e do not have the labels of the targets
// whose series they are computed from. It assumes that groupings have the labels that
// WithGrouping adds.
func checkTargetLabels(e parser.Expr) error {
	// Unknown node types are rejected: nothing shows that they keep the target labels.

	switch n := e.(type) {
	case *parser.VectorSelector:
		return checkNoTimestamp(n, n.Timestamp)
	case *parser.MatrixSelector:
		return checkTargetLabels(n.VectorSelector)
	case *parser.SubqueryExpr:
		if err := checkNoTimestamp(n, n.Timestamp); err != nil {
			return err
		}
		return checkTargetLabels(n.Expr)
	case *parser.ParenExpr:
		return checkTargetLabels(n.Expr)
	case *parser.UnaryExpr:
		return checkTargetLabels(n.Expr)
	case *parser.StepInvariantExpr:
		return checkTargetLabels(n.Expr)
	case *parser.AggregateExpr:
		return checkAggregation(n)
	case *parser.Call:
		return checkCall(n)
	case *parser.BinaryExpr:
		return checkBinary(n)
	default:
		return errNoTargetLabels(e)
	}
}

func errNoTargetLabels(e parser.Expr) error {
	return fmt.Errorf("%s has no labels job and instance", e)
}

// checkNoTimestamp returns an error if e has an @ modifier with a fixed time.
func checkNoTimestamp(e parser.Expr, timestamp *int64) error {
	if timestamp == nil {
		return nil
	}
	return fmt.Errorf("%s always returns values from the same point in the past: leave out @", e)
}

// checkAggregation rejects an aggregation that drops or overwrites a target label, and one whose
// parameter is taken from series.
func checkAggregation(n *parser.AggregateExpr) error {
	if n.Without {
		for _, l := range targetLabels {
			if slices.Contains(n.Grouping, l) {
				return fmt.Errorf("without (%s) aggregates over targets: keep job and instance", l)
			}
		}
	}

	// count_values("job", a) writes the values of a into the label job.
	if err := checkNotOverwritten(n.Op.String(), n.Param); err != nil {
		return err
	}
	if n.Param != nil && n.Param.Type() == parser.ValueTypeScalar {
		if err := checkConstant(n.Param); err != nil {
			return err
		}
	}

	return checkTargetLabels(n.Expr)
}

// checkCall rejects a function whose result does not have the labels of its argument, and one
// that is not called with any series.
func checkCall(n *parser.Call) error {
	switch n.Func.Name {
	case "absent", "absent_over_time", "vector":
		return fmt.Errorf("%s has no labels job and instance: remove it, missing samples can't be filled in", n)
	case "label_replace", "label_join":
		if err := checkNotOverwritten(n.Func.Name, n.Args[1]); err != nil {
			return err
		}
	}

	hasSeries := false
	for _, arg := range n.Args {
		switch arg.Type() {
		case parser.ValueTypeVector, parser.ValueTypeMatrix:
			hasSeries = true
			if err := checkTargetLabels(arg); err != nil {
				return err
			}
		case parser.ValueTypeScalar:
			if err := checkConstant(arg); err != nil {
				return err
			}
		}
	}
	if !hasSeries {
		return errNoTargetLabels(n)
	}

	return nil
}

// checkBinary rejects an operation that matches the series of one target with those of another.
func checkBinary(n *parser.BinaryExpr) error {
	if m := n.VectorMatching; m != nil && !m.On {
		for _, l := range targetLabels {
			if slices.Contains(m.MatchingLabels, l) {
				return fmt.Errorf("ignoring (%s) combines different targets: keep job and instance", l)
			}
		}
	}

	for _, operand := range []parser.Expr{n.LHS, n.RHS} {
		check := checkTargetLabels
		if operand.Type() == parser.ValueTypeScalar {
			check = checkConstant
		}
		if err := check(operand); err != nil {
			return err
		}
	}
	return nil
}

// checkNotOverwritten returns an error if the argument that names the label written by operation
// names a target label.
func checkNotOverwritten(operation string, labelName parser.Expr) error {
	if label, ok := stringLiteral(labelName); ok && slices.Contains(targetLabels, label) {
		return fmt.Errorf("%s overwrites the label %s: use another label", operation, label)
	}
	return nil
}

// checkConstant returns an error if the scalar e is computed from series. It would be one number
// computed from the series of all targets in the query.
func checkConstant(e parser.Expr) error {
	if all := selectors(e); len(all) > 0 {
		return fmt.Errorf("%s reduces %s of many targets to a single number: "+
			"match by labels instead of using scalar()", e, all[0])
	}
	return nil
}

// stringLiteral returns the value of a string literal, which may be in parentheses.
func stringLiteral(e parser.Expr) (string, bool) {
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
