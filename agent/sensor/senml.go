package sensor

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// units are the names of the IANA registries for SenML, as RFC 8428 section 12.1 and RFC 8798 made them: units, then
// secondary units.
const (
	units = "m kg g s A K cd mol Hz rad sr N Pa J W C V F Ohm S Wb T H Cel lm lx Bq Gy Sv kat m2 m3 l m/s m/s2 m3/s l/s " +
		"W/m2 cd/m2 bit bit/s lat lon pH dB dBW Bspl count / % %RH %EL EL 1/s 1/min beat/min beats S/m B VA VAs var vars J/m " +
		"kg/m3 deg"
	secondaryUnits = "ms min h MHz kW kVA kvar Ah Wh kWh varh kvarh kVAh Wh/km KiB GB Mbit/s B/s MB/s mV mA dBm ug/m3 mm/h m/h " +
		"ppm /100 /1000 hPa mm cm km km/h"
)

// KnownUnit says whether SenML has a unit of this name.
func KnownUnit(name string) bool {
	return slices.Contains(strings.Fields(units), name) || secondary(name)
}

func secondary(name string) bool { return slices.Contains(strings.Fields(secondaryUnits), name) }

// versionWithSecondaryUnits is 10 and the feature "secondary units", bit 4 (RFC 9100 sections 3 and 6).
const versionWithSecondaryUnits = 10 + 1<<4

// Record is a reading with a name and a time.
type Record struct {
	Name string // letters, digits, - and _, parts of it divided by /
	Reading
	At time.Time // zero: unknown
}

// record is a SenML record (RFC 8428 section 5); the base fields are in the first of a pack alone.
type record struct {
	BaseName    string      `json:"bn,omitempty"`
	BaseTime    json.Number `json:"bt,omitempty"`
	BaseVersion int         `json:"bver,omitempty"`
	Name        string      `json:"n"`
	Unit        string      `json:"u,omitempty"`
	Value       *float64    `json:"v,omitempty"`
	Text        *string     `json:"vs,omitempty"`
	Flag        *bool       `json:"vb,omitempty"`
	Time        json.Number `json:"t,omitempty"`
}

// Pack makes a SenML pack of records, in JSON (RFC 8428 section 5). Their names begin with "base/". There must be one
// record at least.
func Pack(base string, records []Record) ([]byte, error) {
	pack := make([]record, len(records))
	begin := records[0].At
	for i, r := range records {
		pack[i] = record{Name: r.Name, Unit: r.Unit}
		switch value := r.Value.(type) {
		case float64:
			pack[i].Value = &value
		case bool:
			pack[i].Flag = &value
		case string:
			pack[i].Text = &value
		}
		// Without a base time the times would be relative to when the pack is read.
		if i > 0 && !begin.IsZero() && !r.At.IsZero() && !r.At.Equal(begin) {
			pack[i].Time = micros(r.At.Sub(begin).Microseconds())
		}
		if secondary(r.Unit) {
			pack[0].BaseVersion = versionWithSecondaryUnits
		}
	}
	pack[0].BaseName = base + "/"
	if !begin.IsZero() {
		pack[0].BaseTime = Seconds(begin)
	}
	return json.Marshal(pack)
}

// Seconds is a time as SenML has it: since 1970, to the microsecond.
func Seconds(t time.Time) json.Number { return micros(t.UnixMicro()) }

func micros(n int64) json.Number {
	return json.Number(strconv.FormatFloat(float64(n)/1e6, 'f', 6, 64))
}
