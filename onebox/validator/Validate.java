import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.DefaultProfileValidationSupport;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.validation.FhirValidator;
import ca.uhn.fhir.validation.ResultSeverityEnum;
import ca.uhn.fhir.validation.SingleValidationMessage;
import ca.uhn.fhir.validation.ValidationResult;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.hl7.fhir.common.hapi.validation.support.CommonCodeSystemsTerminologyService;
import org.hl7.fhir.common.hapi.validation.support.InMemoryTerminologyServerValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.UnknownCodeSystemWarningValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.ValidationSupportChain;
import org.hl7.fhir.common.hapi.validation.validator.FhirInstanceValidator;

/**
 * Judges FHIR R4 resources by HL7's reference validator, offline.
 *
 * <p>Law: one resource in, one line of JSON out, in order: {"at", "errors", "warnings"}. Input is
 * NDJSON on stdin, or the files named. Exit 0: all valid; 1: an error in at least one; 2: input
 * could not be read. LOINC, SNOMED and MDC cannot be looked up offline: their codes are warnings;
 * UCUM units, HL7's own code systems and the R4 profiles (every meta.profile) are really checked.
 *
 * <p>Run: java -cp '.tools/validator/*' onebox/validator/Validate.java [FILE...]
 */
final class Validate {
  private Validate() {}

  public static void main(String[] files) {
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    boolean valid = true;
    try {
      FhirValidator validator = validator();
      int at = 0;
      for (String file : files) {
        valid &= judge(validator, at++, Files.readString(Path.of(file)), out);
      }
      if (files.length == 0) {
        BufferedReader in =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
          if (!line.isBlank()) {
            valid &= judge(validator, at++, line, out);
          }
        }
      }
    } catch (IOException error) {
      System.err.println("input cannot be read: " + error.getMessage());
      System.exit(2);
    }
    System.exit(valid ? 0 : 1);
  }

  private static FhirValidator validator() {
    FhirContext context = FhirContext.forR4();
    UnknownCodeSystemWarningValidationSupport unknown =
        new UnknownCodeSystemWarningValidationSupport(context);
    unknown.setNonExistentCodeSystemSeverity(IValidationSupport.IssueSeverity.WARNING);
    ValidationSupportChain chain =
        new ValidationSupportChain(
            new DefaultProfileValidationSupport(context),
            new CommonCodeSystemsTerminologyService(context),
            new InMemoryTerminologyServerValidationSupport(context),
            unknown);
    FhirInstanceValidator instance = new FhirInstanceValidator(chain);
    instance.setAnyExtensionsAllowed(false);
    instance.setErrorForUnknownProfiles(true);
    return context.newValidator().registerValidatorModule(instance);
  }

  private static boolean judge(FhirValidator validator, int at, String resource, PrintStream out) {
    List<String> errors = new ArrayList<>();
    List<String> warnings = new ArrayList<>();
    try {
      ValidationResult result = validator.validateWithResult(resource);
      for (SingleValidationMessage message : result.getMessages()) {
        String text = quoted(message.getLocationString() + ": " + message.getMessage());
        if (message.getSeverity().ordinal() >= ResultSeverityEnum.ERROR.ordinal()) {
          errors.add(text);
        } else if (message.getSeverity() == ResultSeverityEnum.WARNING) {
          warnings.add(text);
        }
      }
    } catch (RuntimeException error) {
      errors.add(quoted("not a resource: " + error.getMessage()));
    }
    out.println(
        "{\"at\":" + at + ",\"errors\":" + errors + ",\"warnings\":" + warnings + "}");
    return errors.isEmpty();
  }

  private static String quoted(String text) {
    StringBuilder quoted = new StringBuilder("\"");
    for (char c : text.toCharArray()) {
      if (c == '"' || c == '\\') {
        quoted.append('\\').append(c);
      } else if (c < ' ') {
        quoted.append(String.format("\\u%04x", (int) c));
      } else {
        quoted.append(c);
      }
    }
    return quoted.append('"').toString();
  }
}
