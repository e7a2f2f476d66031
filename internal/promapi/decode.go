// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/go-faster/jx"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// refused is what the query API says in place of an answer.
type refused struct{ kind, message string }

// Error implements error.
func (r refused) Error() string { return r.message }

var (
	errPartial = errors.New("it says isPartial: data is missing from it")
	errLimit   = errors.New("over series_limit")
)

// decoder reads answers of the query API as they are documented, and nothing else: what is null, of another type, or left
// out would decode to a zero that looks like a number.
type decoder struct {
	seriesLimit int
	partial     bool // An answer from which data is missing is taken.

	words   map[string]string // Label names and values, of which there are far fewer than there are series.
	builder labels.ScratchBuilder
}

func newDecoder(seriesLimit int, partial bool) *decoder {
	return &decoder{seriesLimit: seriesLimit, partial: partial, words: map[string]string{}}
}

// vector reads the answer to an instant query.
func (d *decoder) vector(body []byte) (promql.Vector, error) {
	var (
		kind   string
		result []byte
	)
	err := d.answer(body, func(data *jx.Decoder) error {
		return data.ObjBytes(func(data *jx.Decoder, key []byte) (err error) {
			switch string(key) {
			case "resultType":
				kind, err = data.Str()
			case "result":
				result, err = data.Raw()
			default:
				err = data.Skip()
			}
			return err
		})
	})
	switch {
	case err != nil:
		return nil, err
	case kind != "vector":
		return nil, fmt.Errorf("the answer is a %q where a vector is wanted", kind)
	}
	// A series takes some hundred bytes: the guess saves most of the growing.
	vector := make(promql.Vector, 0, min(len(result)/200, d.seriesLimit))
	err = jx.DecodeBytes(result).Arr(func(series *jx.Decoder) error {
		if len(vector) == d.seriesLimit {
			return errLimit
		}
		s, err := d.sample(series)
		vector = append(vector, s)
		return err
	})
	return vector, err
}

// series reads the answer of the series API.
func (d *decoder) series(body []byte) ([]labels.Labels, error) {
	var all []labels.Labels
	err := d.answer(body, func(data *jx.Decoder) error {
		return data.Arr(func(series *jx.Decoder) error {
			if len(all) == d.seriesLimit {
				return errLimit
			}
			l, err := d.labels(series)
			all = append(all, l)
			return err
		})
	})
	return all, err
}

// answer reads what all answers have, and their data by read.
func (d *decoder) answer(body []byte, read func(*jx.Decoder) error) error {
	var (
		status  string
		partial bool
		said    refused
		data    bool
	)
	err := jx.DecodeBytes(body).ObjBytes(func(field *jx.Decoder, key []byte) (err error) {
		switch string(key) {
		case "status":
			status, err = field.Str()
		case "errorType":
			said.kind, err = field.Str()
		case "error":
			said.message, err = field.Str()
		case "isPartial":
			partial, err = field.Bool()
		case "data":
			if field.Next() == jx.Null {
				return field.Skip()
			}
			data = true
			err = read(field)
		default: // Among them warnings, which are annotations of PromQL too.
			err = field.Skip()
		}
		return err
	})
	switch {
	case status == "error":
		return said
	case err != nil:
		return err
	case status != "success":
		return fmt.Errorf("its status is %q", status)
	case partial && !d.partial:
		return errPartial
	case !data:
		return errors.New("it has no data")
	}
	return nil
}

// sample reads a series with its one sample.
func (d *decoder) sample(series *jx.Decoder) (promql.Sample, error) {
	s := promql.Sample{T: math.MinInt64}
	if series.Next() == jx.Null {
		return s, errors.New("it holds a series that is null")
	}
	err := series.ObjBytes(func(field *jx.Decoder, key []byte) (err error) {
		switch string(key) {
		case "metric":
			s.Metric, err = d.labels(field)
		case "value":
			s.T, s.F, err = value(field)
		case "histogram":
			return errors.New("it holds a native histogram where a number is wanted")
		default:
			err = field.Skip()
		}
		return err
	})
	if err == nil && s.T == math.MinInt64 {
		err = fmt.Errorf("it holds a series without a value: %s", s.Metric)
	}
	return s, err
}

// value reads a pair of a time in seconds and a number in a string.
func value(pair *jx.Decoder) (ms int64, v float64, err error) {
	n := 0
	err = pair.Arr(func(item *jx.Decoder) error {
		n++
		switch n {
		case 1:
			seconds, err := item.Float64()
			ms = int64(math.Round(seconds * 1000))
			return err
		case 2:
			text, err := item.StrBytes()
			if err != nil {
				return err
			}
			v, err = strconv.ParseFloat(string(text), 64)
			return err
		default:
			return errors.New("a value has more than a time and a number")
		}
	})
	if err == nil && n != 2 {
		err = errors.New("a value has no number")
	}
	return ms, v, err
}

// labels reads a label set.
func (d *decoder) labels(set *jx.Decoder) (labels.Labels, error) {
	d.builder.Reset()
	err := set.ObjBytes(func(field *jx.Decoder, name []byte) error {
		value, err := field.StrBytes()
		d.builder.Add(d.word(name), d.word(value))
		return err
	})
	if err != nil {
		return labels.EmptyLabels(), err
	}
	d.builder.Sort()
	return d.builder.Labels(), nil
}

func (d *decoder) word(b []byte) string {
	if w, ok := d.words[string(b)]; ok {
		return w
	}
	w := string(b)
	d.words[w] = w
	return w
}
