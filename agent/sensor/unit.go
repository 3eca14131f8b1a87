package sensor

// ExpectedUnit is the unit that the readings of a sensor will have, by its SenML name, for who must know before there is
// one; empty where they have none, or where only the device can tell.
func (cfg Config) ExpectedUnit() string {
	if cfg.Unit != "" {
		return cfg.Unit
	}
	switch cfg.Kind {
	case CPUTemperature, DS18B20:
		return "Cel"
	case Load:
		return "count"
	case Uptime:
		return "s"
	case Memory, Disk:
		if cfg.Channel == "available" {
			return "B"
		}
		return "/100"
	case BME280, BMP280:
		return map[string]string{"": "Cel", "temperature": "Cel", "humidity": "%RH", "pressure": "Pa"}[cfg.Channel]
	case IIO:
		return measureOf(cfg.Channel, iioMeasures()).unit
	case Hwmon:
		return measureOf(cfg.Channel, hwmonMeasures()).unit
	default:
		return ""
	}
}
