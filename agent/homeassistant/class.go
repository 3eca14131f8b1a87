package homeassistant

import (
	"slices"
	"strings"
)

// Device classes as Home Assistant lists them for each platform: homeassistant/components/*/const.py.
const (
	switchClasses = "outlet switch"
	binaryClasses = "battery battery_charging carbon_monoxide cold connectivity door garage_door gas heat light lock moisture motion " +
		"moving occupancy opening plug power presence problem running safety smoke sound tamper update vibration window"
)

// ValidClass says whether a platform ("switch", "binary_sensor", "sensor") has a device class. None is always valid.
func ValidClass(platform, class string) bool {
	if class == "" {
		return true
	}
	switch platform {
	case platformSwitch:
		return slices.Contains(strings.Fields(switchClasses), class)
	case platformBinary:
		return slices.Contains(strings.Fields(binaryClasses), class)
	case platformSensor:
		_, ok := unitsOf(class)
		return ok
	default:
		return false // a light has none
	}
}

// unitsOf lists the units that Home Assistant takes for a device class of a sensor that is a measurement. The classes that
// are no measurements, such as energy and timestamp, are left out.
func unitsOf(class string) ([]string, bool) {
	units, ok := map[string]string{
		"apparent_power":                   "VA",
		"aqi":                              "",
		"atmospheric_pressure":             "Pa hPa kPa mbar cbar bar mmHg inHg psi",
		"battery":                          "%",
		"carbon_dioxide":                   "ppm",
		"carbon_monoxide":                  "ppm",
		"current":                          "A mA",
		"data_size":                        "bit B kB MB GB TB KiB MiB GiB TiB",
		"distance":                         "mm cm m km in ft yd mi",
		"duration":                         "d h min s ms",
		"frequency":                        "Hz kHz MHz GHz",
		"humidity":                         "%",
		"illuminance":                      "lx",
		"irradiance":                       "W/m²",
		"moisture":                         "%",
		"ph":                               "",
		"pm1":                              "µg/m³",
		"pm10":                             "µg/m³",
		"pm25":                             "µg/m³",
		"power":                            "mW W kW MW",
		"power_factor":                     "%",
		"pressure":                         "Pa hPa kPa mbar cbar bar mmHg inHg psi",
		"reactive_power":                   "var",
		"signal_strength":                  "dB dBm",
		"sound_pressure":                   "dB dBA",
		"speed":                            "m/s km/h mm/s",
		"temperature":                      "°C °F K",
		"volatile_organic_compounds_parts": "ppm ppb",
		"voltage":                          "V mV kV",
		"volume_storage":                   "mL L m³",
		"weight":                           "µg mg g kg",
		"wind_speed":                       "m/s km/h",
	}[class]
	if units == "" {
		return []string{""}, ok
	}
	return strings.Fields(units), ok
}

// unit says in Home Assistant's words what SenML calls a unit, and the device class that goes with it, if one surely does.
// A unit that Home Assistant has no word for is shown as it is.
func unit(senml string) (unit, class string) {
	known := map[string][2]string{
		"":      {},
		"count": {}, // a number of things
		"/100":  {"%", ""},
		"%":     {"%", ""},
		"%RH":   {"%", "humidity"},
		"%EL":   {"%", "battery"},
		"Cel":   {"°C", "temperature"},
		"K":     {"K", "temperature"},
		"Pa":    {"Pa", "pressure"},
		"V":     {"V", "voltage"},
		"mV":    {"mV", "voltage"},
		"A":     {"A", "current"},
		"mA":    {"mA", "current"},
		"W":     {"W", "power"},
		"kW":    {"kW", "power"},
		"VA":    {"VA", "apparent_power"},
		"var":   {"var", "reactive_power"},
		"Hz":    {"Hz", "frequency"},
		"MHz":   {"MHz", "frequency"},
		"lx":    {"lx", "illuminance"},
		"W/m2":  {"W/m²", "irradiance"},
		"B":     {"B", "data_size"},
		"KiB":   {"KiB", "data_size"},
		"GB":    {"GB", "data_size"},
		"s":     {"s", "duration"},
		"ms":    {"ms", "duration"},
		"min":   {"min", "duration"},
		"h":     {"h", "duration"},
		"m":     {"m", "distance"},
		"kg":    {"kg", "weight"},
		"g":     {"g", "weight"},
		"m/s":   {"m/s", "speed"},
		"dB":    {"dB", ""},
		"dBm":   {"dBm", "signal_strength"},
		"l":     {"L", "volume_storage"},
		"m3":    {"m³", "volume_storage"},
		"pH":    {"", "ph"},
		"ppm":   {"ppm", ""},
		"1/min": {"1/min", ""},
	}
	if found, ok := known[senml]; ok {
		return found[0], found[1]
	}
	return senml, ""
}
